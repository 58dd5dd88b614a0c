// Words of CUDA C++ for a host compiler, so that slab.cu runs without a device:
//
//   g++ -x c++ -std=c++17 -O2 -ffp-contract=off -shared -fPIC -include kernels/on_host.h kernels/slab.cu
//
// `on_host` runs the threads of a kernel one after another: what one thread does. `on_host_together` runs those of a
// block as fibers that meet where threads do, in an order that a seed chooses: warps and blocks that work together. What
// a race may do is found as far as such orders find it; the order of memory and the compiler for the device are not here.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <vector>

#define __global__
#define __device__
#define __constant__
#define __shared__ static
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __restrict__
#define __align__(BYTES) alignas(BYTES)

struct OnHost {
    int64_t x;
};

static OnHost blockIdx, blockDim, threadIdx, gridDim;

struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};

static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

template <class T>
static T atomicAdd(T* at, T value) {
    const T before = *at;
    *at = before + value;
    return before;
}

template <class T>
static T atomicMax(T* at, T value) {
    const T before = *at;
    if (before < value) *at = value;
    return before;
}

template <class T>
static T atomicMin(T* at, T value) {
    const T before = *at;
    if (value < before) *at = value;
    return before;
}

static inline int __popc(uint32_t x) { return __builtin_popcount(x); }
static inline int __ffs(uint32_t x) { return __builtin_ffs(static_cast<int>(x)); }
static inline int __clz(uint32_t x) { return x ? __builtin_clz(x) : 32; }

// Fibers ----------------------------------------------------------------------------------------------------------

enum Meeting { NOWHERE, WARP, BLOCK };

struct Fiber {
    ucontext_t at;
    int64_t thread;
    bool done;
    Meeting meets;
    uint64_t gives, gets[32];
};

static Fiber* on_fiber;  // null where threads run one after another
static ucontext_t fibers_home;
static void (*fiber_work)();
alignas(16) static unsigned char shared_bytes_on_host[232448];
constexpr size_t FIBER_STACK = 64 << 10;

// Waits until every thread of the warp or block is here, and returns what those of the warp gave.
static const uint64_t* meet(Meeting where, uint64_t gives) {
    if (!on_fiber) abort();
    Fiber* mine = on_fiber;
    mine->gives = gives;
    mine->meets = where;
    swapcontext(&mine->at, &fibers_home);
    return mine->gets;
}

static inline void __syncthreads() { meet(BLOCK, 0); }
static inline void __syncwarp(uint32_t = ~0u) { meet(WARP, 0); }

template <class T>
static uint64_t as_word(T value) {
    uint64_t word = 0;
    memcpy(&word, &value, sizeof value);
    return word;
}

template <class T>
static T as_value(uint64_t word) {
    T value;
    memcpy(&value, &word, sizeof value);
    return value;
}

template <class T>
static T __shfl_sync(uint32_t, T value, int lane) {
    return as_value<T>(meet(WARP, as_word(value))[lane & 31]);
}

template <class T>
static T __shfl_up_sync(uint32_t, T value, int by) {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    const uint64_t* all = meet(WARP, as_word(value));
    return as_value<T>(all[lane >= by ? lane - by : lane]);
}

template <class T>
static T __shfl_down_sync(uint32_t, T value, int by) {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    const uint64_t* all = meet(WARP, as_word(value));
    return as_value<T>(all[lane + by < 32 ? lane + by : lane]);
}

static inline uint32_t __ballot_sync(uint32_t, int predicate) {
    const uint64_t* all = meet(WARP, predicate != 0);
    uint32_t mask = 0;
    for (int lane = 0; lane < 32; ++lane) mask |= static_cast<uint32_t>(all[lane]) << lane;
    return mask;
}

static inline int __all_sync(uint32_t mask, int predicate) { return __ballot_sync(mask, predicate) == ~0u; }
static inline int __any_sync(uint32_t mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

static void fiber_begin() {
    fiber_work();
    on_fiber->done = true;
    swapcontext(&on_fiber->at, &fibers_home);
}

// Lets every fiber of a warp or block go on whose threads all wait for each other; false if there is none.
static bool let_go(std::vector<Fiber>& block, size_t begin, size_t end, Meeting where) {
    bool any = false;
    for (size_t i = begin; i < end; ++i) {
        if (where == BLOCK && block[i].done) continue;  // as on a device, a thread that left is not waited for
        if (block[i].done || block[i].meets != where) return false;
        any = true;
    }
    if (!any) return false;
    for (size_t i = begin; i < end; ++i) {
        if (where == WARP)
            for (size_t j = begin; j < end; ++j) block[i].gets[j - begin] = block[j].gives;
        block[i].meets = NOWHERE;
    }
    return true;
}

static uint64_t next_random(uint64_t& state) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
}

static void __attribute__((noinline)) prepare(Fiber& fiber, int64_t thread, unsigned char* stack) {
    fiber.thread = thread;
    fiber.done = false;
    fiber.meets = NOWHERE;
    getcontext(&fiber.at);
    fiber.at.uc_stack.ss_sp = stack;
    fiber.at.uc_stack.ss_size = FIBER_STACK;
    fiber.at.uc_link = nullptr;
    makecontext(&fiber.at, fiber_begin, 0);
}

static void run_block(std::vector<Fiber>& block, std::vector<unsigned char>& stacks, uint64_t& random) {
    std::vector<size_t> order(block.size());
    for (size_t i = 0; i < block.size(); ++i) {
        prepare(block[i], static_cast<int64_t>(i), &stacks[i * FIBER_STACK]);
        order[i] = i;
    }
    for (;;) {
        for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[next_random(random) % i]);
        bool live = false;
        for (size_t i : order) {
            if (block[i].done || block[i].meets != NOWHERE) continue;
            on_fiber = &block[i];
            threadIdx.x = block[i].thread;
            swapcontext(&fibers_home, &block[i].at);
        }
        for (const Fiber& fiber : block) live |= !fiber.done;
        if (!live) break;
        bool moved = false;
        for (size_t warp = 0; warp < block.size(); warp += 32) moved |= let_go(block, warp, warp + 32, WARP);
        if (!moved && !let_go(block, 0, block.size(), BLOCK)) abort();  // a device would wait for ever
    }
    on_fiber = nullptr;
}

#define SG_ON_HOST(JOB)                                                                                                \
    static void (*kernel_on_host)(JOB, int64_t);                                                                       \
    static const JOB* job_on_host;                                                                                     \
    static int64_t n_on_host;                                                                                          \
    /* A kernel for every thread of a grid that covers n. */                                                           \
    extern "C" void on_host(void (*kernel)(JOB, int64_t), const JOB* job, int64_t n, int64_t threads) {                \
        blockDim.x = threads;                                                                                          \
        gridDim.x = (n + threads - 1) / threads;                                                                       \
        for (blockIdx.x = 0; blockIdx.x * threads < n; ++blockIdx.x)                                                   \
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel(*job, n);                               \
    }                                                                                                                  \
    extern "C" void on_host_together(void (*kernel)(JOB, int64_t), const JOB* job, int64_t n, int64_t threads,         \
                                     uint64_t seed) {                                                                  \
        kernel_on_host = kernel;                                                                                       \
        job_on_host = job;                                                                                             \
        n_on_host = n;                                                                                                 \
        fiber_work = [] { kernel_on_host(*job_on_host, n_on_host); };                                                  \
        blockDim.x = threads;                                                                                          \
        gridDim.x = (n + threads - 1) / threads;                                                                       \
        std::vector<Fiber> block(static_cast<size_t>(threads));                                                        \
        std::vector<unsigned char> stacks(block.size() * FIBER_STACK);                                                 \
        for (blockIdx.x = 0; blockIdx.x * threads < n; ++blockIdx.x) {                                                 \
            memset(shared_bytes_on_host, 0xA5, sizeof shared_bytes_on_host);                                           \
            run_block(block, stacks, seed);                                                                            \
        }                                                                                                              \
    }
