"""The law in C++: compiled kernels for CPUs."""
