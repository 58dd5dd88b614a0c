"""Reports as pages that are complete in themselves: numbers, pictures, and where they come from."""
