"""Clients that a user states."""
