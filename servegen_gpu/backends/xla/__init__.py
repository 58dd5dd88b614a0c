"""The law under JAX."""
