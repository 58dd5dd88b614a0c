// The CUDA driver: kernels for the steps of slab.h, one thread an element, and of tasks.h, a warp or a block at a time;
// servegen_gpu/backends/cuda/ launches them. Compile without contraction of a * b + c (--fmad=false).
// tests/test_cuda_host.py compiles the same text for the host, with kernels/on_host.h before it.
#include "tasks.h"

using namespace SG_NAMESPACE;

#define SG_THREAD (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x)
#define SG_KERNEL extern "C" __global__ void __launch_bounds__
#define SG_JOB const __grid_constant__ SlabJob job, [[maybe_unused]] int64_t n

// One thread an element.
#define SG_EACH(NAME)                          \
    SG_KERNEL(256) sg_##NAME(SG_JOB) {         \
        const int64_t i = SG_THREAD;           \
        if (i < n) NAME##_at(job, i);          \
    }

SG_EACH(expect)
SG_EACH(begin)
SG_EACH(tile)
SG_EACH(unit)
SG_EACH(tick)
SG_EACH(sum)
SG_EACH(total)
SG_EACH(end)
SG_EACH(word)
SG_EACH(record)
SG_EACH(row)
SG_EACH(item)
SG_EACH(limit)
SG_EACH(task)
SG_EACH(reach)

// Maxima are free of order. A warp inside one run, which is most of them where cells are large, asks for its largest
// once; elsewhere the runs are many, and so are the places that are asked for.
SG_KERNEL(256) sg_gap(SG_JOB) {
    const int64_t i = SG_THREAD;
    Gap gap = {-1, 0};
    if (i < n) gap = gap_at(job, i);
#if defined(__CUDA_ARCH__)
    const long long first = __shfl_sync(ALL_LANES, static_cast<long long>(gap.run), 0);
    if (__all_sync(ALL_LANES, gap.run == first || gap.run < 0)) {
        const uint64_t key = largest_of_lanes(gap.peak);
        if (lane_of() == 0 && first >= 0) raise(job.peak + first, key);
        return;
    }
#endif
    if (gap.run >= 0) raise(job.peak + gap.run, gap.peak);
}

SG_KERNEL(256) sg_cross(SG_JOB) {
    const int64_t i = SG_THREAD;
    if (i >= n) return;
    const Place at = place_of_request(job, i);
    if (crosses(job, at, i))
        atomicMin(reinterpret_cast<unsigned long long*>(job.kept + at.cell), static_cast<unsigned long long>(at.ordinal));
}

// Warps that take one task after another.
#define SG_FOR_TASKS(COUNT, BODY)                                                                                      \
    for (uint32_t task = static_cast<uint32_t>(SG_THREAD / 32); task < static_cast<uint32_t>(COUNT);                   \
         task += static_cast<uint32_t>(gridDim.x) * static_cast<uint32_t>(blockDim.x) / 32) {                          \
        BODY;                                                                                                          \
    }

SG_KERNEL(256, 4) sg_draw(SG_JOB) {
    double* normals = SG_SHARED(double);
    Pool& pool = reinterpret_cast<Pool*>(normals + NormalRows::SIZE)[threadIdx.x / 32];
    const NormalRows rows = normal_rows(normals);
    SG_FOR_TASKS((job.tasks + POOL - 1) / POOL, draw_pool(job, task * POOL, rows, pool))
}

SG_KERNEL(256) sg_sums(SG_JOB) { SG_FOR_TASKS(job.tasks, tick_task(job, task)) }

SG_KERNEL(256) sg_more(SG_JOB) {
    const NormalRows normals = normal_rows(SG_SHARED(double));
    SG_FOR_TASKS(job.cells, more_of(job, task, normals))
}

SG_KERNEL(256) sg_time(SG_JOB) { SG_FOR_TASKS(job.tasks, time_task(job, task)) }

// Blocks as large as they can be: all warps of a multiprocessor are in about one cell, whose tables its cache holds.
SG_KERNEL(1024, 1) sg_scatter(SG_JOB) {
    const NormalRows normals = normal_rows(SG_SHARED(double));
    SG_FOR_TASKS(job.tasks, scatter_task(job, task, normals))
}

SG_KERNEL(BUCKET_THREADS, 3) sg_arrange(SG_JOB) { arrange_bucket(job, blockIdx.x); }
