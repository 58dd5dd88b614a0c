"""Populations: presets, skews, resampled pools."""
