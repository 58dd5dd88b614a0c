"""Traces that others wrote: told apart by their columns, checked, and turned into ours."""
