// Words of CUDA C++ for a host compiler, so that slab.cu runs without a device:
//
//   g++ -x c++ -std=c++17 -O2 -ffp-contract=off -shared -fPIC -include kernels/on_host.h kernels/slab.cu
//
// `on_host` runs the threads of a kernel one after another: what one thread does. `on_host_together` runs those of a
// block as fibers that meet where threads do, in an order that a seed chooses: warps and blocks that work together. What
// a race may do is found as far as such orders find it; the order of memory and the compiler for the device are not here.
#pragma once

#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
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
    jmp_buf at;
    ucontext_t start;
    bool started, done;
    Meeting meets;
    uint64_t gives;
};

constexpr size_t FIBERS = 1024, FIBER_STACK = 64 << 10;

static Fiber fibers[FIBERS];  // kept with their stacks: every one runs a thread of each block
static uint64_t given_to_warps[FIBERS];
static Fiber* on_fiber;  // null where threads run one after another
static jmp_buf fibers_home;
static void (*fiber_work)();
alignas(16) static unsigned char shared_bytes_on_host[232448];

// Waits until every thread of the warp or block is here, and returns what those of the warp gave.
static const uint64_t* meet(Meeting where, uint64_t gives) {
    if (!on_fiber) abort();
    Fiber* mine = on_fiber;
    mine->gives = gives;
    mine->meets = where;
    if (!_setjmp(mine->at)) _longjmp(fibers_home, 1);
    return given_to_warps + (mine - fibers) / 32 * 32;
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
    Fiber* mine = on_fiber;
    for (;;) {
        fiber_work();
        mine->done = true;
        if (!_setjmp(mine->at)) _longjmp(fibers_home, 1);
    }
}

// Lets every fiber of a warp or block go on whose threads all wait for each other; false if there is none.
static bool let_go(size_t begin, size_t end, Meeting where) {
    bool any = false;
    for (size_t i = begin; i < end; ++i) {
        if (where == BLOCK && fibers[i].done) continue;  // as on a device, a thread that left is not waited for
        if (fibers[i].done || fibers[i].meets != where) return false;
        any = true;
    }
    if (!any) return false;
    for (size_t i = begin; i < end; ++i) {
        if (where == WARP) given_to_warps[i] = fibers[i].gives;
        fibers[i].meets = NOWHERE;
    }
    return true;
}

static uint64_t next_random(uint64_t& state) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
}

static void begin_fiber(Fiber& fiber) {
    static std::vector<std::unique_ptr<unsigned char[]>> stacks;
    stacks.emplace_back(new unsigned char[FIBER_STACK]);
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = stacks.back().get();
    fiber.start.uc_stack.ss_size = FIBER_STACK;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, fiber_begin, 0);
    fiber.started = true;
    setcontext(&fiber.start);
}

// Runs a fiber until it waits for others, or is done.
static void __attribute__((noinline)) go_on(Fiber& fiber) {
    on_fiber = &fiber;
    threadIdx.x = &fiber - fibers;
    if (_setjmp(fibers_home)) return;
    if (fiber.started) _longjmp(fiber.at, 1);
    begin_fiber(fiber);
}

static void run_block(size_t threads, uint64_t& random) {
    std::vector<size_t> order(threads);
    for (size_t i = 0; i < threads; ++i) {
        fibers[i].done = false;
        fibers[i].meets = NOWHERE;
        order[i] = i;
    }
    for (;;) {
        for (size_t i = threads; i > 1; --i) std::swap(order[i - 1], order[next_random(random) % i]);
        for (size_t i : order)
            if (!fibers[i].done && fibers[i].meets == NOWHERE) go_on(fibers[i]);
        if (std::all_of(fibers, fibers + threads, [](const Fiber& fiber) { return fiber.done; })) break;
        bool moved = false;
        for (size_t warp = 0; warp < threads; warp += 32) moved |= let_go(warp, warp + 32, WARP);
        if (!moved && !let_go(0, threads, BLOCK)) abort();  // a device would wait for ever
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
        if (threads > static_cast<int64_t>(FIBERS)) abort();                                                           \
        for (blockIdx.x = 0; blockIdx.x * threads < n; ++blockIdx.x) {                                                 \
            memset(shared_bytes_on_host, 0xA5, sizeof shared_bytes_on_host);                                           \
            run_block(static_cast<size_t>(threads), seed);                                                             \
        }                                                                                                              \
    }
