"""Kernels run on a CPU by the instructions that a device would run: CUDA C++ → PTX → C++ → threads as fibers.

NVRTC or nvcc makes PTX of a text (`compile.py`), as for a device, with no driver. `parse.py` reads it, `emit.py` and
`forms.py` write every instruction as a statement of C++, `translate.py` every kernel as a function of one thread. What
instructions compute is in `instructions.h`, what threads wait for in `machine.h` and `collectives.h`, memory in
`memory.h`. `device.py` compiles all of it with g++ and launches kernels; `reference.py` is what its tests compare with.

Fibers go on in random order, from a seed that the caller states, so that what depends on the order of threads differs
between two seeds. Errors, with the line of the PTX, are: barriers and shuffles that not all who are named come to;
threads that wait for ever; addresses that are null, not aligned, or outside of shared memory; bytes of shared memory
that are read before they are written, or used by two threads with no barrier between them. An instruction that is not
known is refused.

Not covered: ptxas, which makes machine code of PTX; the order in which other threads see writes to global memory, and
races there that no order of whole stretches between two meetings shows; what is beyond the end of arrays in global
memory; the exact bits of approximate instructions; CUB's device-wide algorithms, which need the CUDA runtime; speed.
"""
