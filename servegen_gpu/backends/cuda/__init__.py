"""The law on CUDA devices."""
