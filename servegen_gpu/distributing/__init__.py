"""A trace in parts that many processes or machines make; see `servegen_gpu.formats.parted` for what is where."""
