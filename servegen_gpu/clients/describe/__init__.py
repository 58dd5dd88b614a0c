"""Figures of pools."""
