"""The law on the host: NumPy in blocks, surveys of large windows, fields from addresses."""
