"""Clients from released profiles."""
