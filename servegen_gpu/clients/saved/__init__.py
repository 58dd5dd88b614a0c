"""Pools as directories that a person can read, share and edit."""
