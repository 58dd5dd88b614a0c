// The CUDA driver: a kernel for each step of slab.h, one thread an element; servegen_gpu/backends/cuda/slab.py launches
// them. Compile without contraction of a * b + c (--fmad=false). tests/test_cuda_host.py compiles the same text for the
// host, with kernels/on_host.h before it.
#include "slab.h"

using namespace SG_NAMESPACE;

#define SG_THREAD (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x)

#define SG_KERNEL(NAME)                                                                                 \
    extern "C" __global__ void __launch_bounds__(256, 2) sg_##NAME(const SlabJob* __restrict__ job, int64_t n) { \
        const int64_t i = SG_THREAD;                                                                    \
        if (i < n) NAME##_at(*job, i);                                                                  \
    }

SG_KERNEL(expect)
SG_KERNEL(begin)
SG_KERNEL(tile)
SG_KERNEL(unit)
SG_KERNEL(tick)
SG_KERNEL(sum)
SG_KERNEL(total)
SG_KERNEL(end)
SG_KERNEL(word)
SG_KERNEL(record)
SG_KERNEL(row)
SG_KERNEL(item)
SG_KERNEL(limit)

static __device__ __forceinline__ void raise(uint64_t* peak, uint64_t key) {
    if (key) atomicMax(reinterpret_cast<unsigned long long*>(peak), static_cast<unsigned long long>(key));
}

// Maxima are free of order. A warp inside one run, which is most of them where cells are large, asks for its largest
// once; elsewhere the runs are many, and so are the places that are asked for.
extern "C" __global__ void __launch_bounds__(256, 2) sg_gap(const SlabJob* __restrict__ job, int64_t n) {
    const int64_t i = SG_THREAD;
    Gap gap = {-1, 0};
    if (i < n) gap = gap_at(*job, i);
#if defined(__CUDA_ARCH__)
    const unsigned all = 0xFFFFFFFFu;
    const long long first = __shfl_sync(all, static_cast<long long>(gap.run), 0);
    if (__all_sync(all, gap.run == first || gap.run < 0)) {
        unsigned long long key = gap.peak;
        for (int by = 16; by > 0; by >>= 1) {
            const unsigned long long other = __shfl_down_sync(all, key, by);
            key = other > key ? other : key;
        }
        if (threadIdx.x % 32 == 0 && first >= 0) raise(job->peak + first, key);
        return;
    }
#endif
    if (gap.run >= 0) raise(job->peak + gap.run, gap.peak);
}

extern "C" __global__ void __launch_bounds__(256, 2) sg_cross(const SlabJob* __restrict__ job, int64_t n) {
    const int64_t i = SG_THREAD;
    if (i >= n) return;
    const Place at = place_of_request(*job, i);
    if (crosses(*job, at, i))
        atomicMin(reinterpret_cast<unsigned long long*>(job->kept + at.cell), static_cast<unsigned long long>(at.ordinal));
}
