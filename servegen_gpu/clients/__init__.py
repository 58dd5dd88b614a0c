"""Who sends requests, and where that knowledge comes from."""
