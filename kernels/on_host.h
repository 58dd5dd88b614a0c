// Words of CUDA C++ for a host compiler, so that slab.cu runs thread by thread without a device:
//
//   g++ -x c++ -std=c++17 -O2 -ffp-contract=off -shared -fPIC -include kernels/on_host.h kernels/slab.cu
//
// Threads run one after another, so this covers what one thread does: no barriers, shuffles or races.
#pragma once

#include <stdint.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct OnHost {
    int64_t x;
};

static OnHost blockIdx, blockDim, threadIdx;

template <class T>
static void atomicMax(T* at, T value) {
    if (*at < value) *at = value;
}

template <class T>
static void atomicMin(T* at, T value) {
    if (value < *at) *at = value;
}

// A kernel for every thread of a grid that covers n.
extern "C" void on_host(void (*kernel)(const void*, int64_t), const void* job, int64_t n, int64_t threads) {
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x * threads < n; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel(job, n);
}
