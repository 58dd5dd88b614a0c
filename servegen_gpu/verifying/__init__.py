"""A trace made once more from its provenance, and compared row by row."""
