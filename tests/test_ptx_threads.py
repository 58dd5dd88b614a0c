"""Threads together, and memory: small CUDA kernels run by their PTX, against NumPy, and what must not pass.

Every kernel runs with two seeds of the order of threads.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from native import words
from ptx.compile import MISSING
from ptx.device import COMPILER, LaunchError, PtxModule, cuda

pytestmark = pytest.mark.skipif(not COMPILER or bool(MISSING), reason=MISSING or "no g++ to run PTX")

each_seed = pytest.mark.parametrize("seed", [1, 2])

KERNELS = r"""
typedef unsigned int u32;
typedef unsigned long long u64;
#define KERNEL extern "C" __global__ void
#define ALL 0xFFFFFFFFu

KERNEL shuffles(const int* in, int* out) {
    const int i = threadIdx.x, x = in[i];
    out[0 * 64 + i] = __shfl_sync(ALL, x, i * 7);
    out[1 * 64 + i] = __shfl_up_sync(ALL, x, 3);
    out[2 * 64 + i] = __shfl_down_sync(ALL, x, 5, 16);
    out[3 * 64 + i] = __shfl_xor_sync(ALL, x, 9);
}
KERNEL votes(const int* in, u32* out) {
    const int i = threadIdx.x, x = in[i];
    out[0 * 64 + i] = __ballot_sync(ALL, x & 1);
    out[1 * 64 + i] = __all_sync(ALL, x >= 0) + 2 * __any_sync(ALL, x == 3) + 4 * __all_sync(ALL, x == 3);
    out[2 * 64 + i] = __match_any_sync(ALL, x % 5);
    int same;
    out[3 * 64 + i] = __match_all_sync(ALL, (u64)(x >> 31), &same) + same;
    out[4 * 64 + i] = __reduce_add_sync(ALL, (u32)x);
    out[5 * 64 + i] = (u32)__reduce_min_sync(ALL, -x);
}
KERNEL parts_of_warps(const int* in, u32* out) {  // lanes of each residue by themselves
    const u32 lane = threadIdx.x % 32, third = lane % 3;
    u32 mask = 0;
    for (u32 l = third; l < 32; l += 3) mask |= 1u << l;
    if (third == 0) out[threadIdx.x] = __ballot_sync(mask, in[threadIdx.x] & 1);
    else if (third == 1) out[threadIdx.x] = __reduce_max_sync(mask, (u32)in[threadIdx.x]);
    else out[threadIdx.x] = __popc(__match_any_sync(mask, in[threadIdx.x] & 3));
}
KERNEL counts(const int* in, int* out) {
    const int x = in[threadIdx.x];
    const int odd = __syncthreads_count(x & 1), all = __syncthreads_and(x < 1000), any = __syncthreads_or(x == 3);
    if (threadIdx.x == 0) out[0] = odd, out[1] = all, out[2] = any;
}
KERNEL named(int* out) {  // producers arrive, one warp waits
    __shared__ int box[96];
    if (threadIdx.x >= 32) {
        box[threadIdx.x - 32] = threadIdx.x;
        asm volatile("bar.arrive 3, 128;" ::: "memory");
    } else {
        asm volatile("bar.sync 3, 128;" ::: "memory");
        int sum = 0;
        for (int k = threadIdx.x; k < 96; k += 32) sum += box[k];
        out[threadIdx.x] = sum;
    }
}
KERNEL scan(const u32* in, u32* out, int n) {  // inclusive, over a block of any number of whole warps
    __shared__ u32 total[32];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 x = threadIdx.x < n ? in[threadIdx.x] : 0;
    for (int by = 1; by < 32; by *= 2) {
        const u32 other = __shfl_up_sync(ALL, x, by);
        if (lane >= by) x += other;
    }
    if (lane == 31) total[warp] = x;
    __syncthreads();
    for (u32 w = 0; w < warp; ++w) x += total[w];
    if (threadIdx.x < n) out[threadIdx.x] = x;
}
// A stable sort of 256 keys by 12 bits: ranks by warps that match, histograms in shared memory.
KERNEL radix(const u32* in, u32* out) {
    __shared__ u32 key[256], next[256];
    __shared__ u32 count[8][16];
    extern __shared__ u32 base[];
    const u32 i = threadIdx.x, lane = i % 32, warp = i / 32;
    key[i] = in[i];
    __syncthreads();
    for (int shift = 0; shift < 12; shift += 4) {
        if (i < 128) count[i / 16][i % 16] = 0;
        const u32 own = key[i], digit = own >> shift & 15;
        __syncthreads();
        const u32 peers = __match_any_sync(ALL, digit), before = __popc(peers & ((1u << lane) - 1));
        if (before == 0) count[warp][digit] = __popc(peers);
        __syncthreads();
        if (i == 0)
            for (u32 d = 0, sum = 0; d < 16; ++d)
                for (u32 w = 0; w < 8; ++w) base[w * 16 + d] = sum, sum += count[w][d];
        __syncthreads();
        next[base[warp * 16 + digit] + before] = own;
        __syncthreads();
        key[i] = next[i];
        __syncthreads();
    }
    out[i] = key[i];
}
KERNEL histogram(const u32* in, u32* out, int n) {
    __shared__ u32 bins[64];
    if (threadIdx.x < 64) bins[threadIdx.x] = 0;
    __syncthreads();
    const int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) atomicAdd(&bins[in[i] % 64], 1u);
    __syncthreads();
    if (threadIdx.x < 64) atomicAdd(&out[threadIdx.x], bins[threadIdx.x]);
}
KERNEL atomics(const u32* in, u32* w, u64* d, double* f) {
    const u32 x = in[blockIdx.x * blockDim.x + threadIdx.x];
    atomicAdd(w + 0, x), atomicSub(w + 1, x), atomicMin(w + 2, x), atomicMax(w + 3, x);
    atomicMin((int*)w + 4, (int)x), atomicMax((int*)w + 5, (int)x);
    atomicAnd(w + 6, x), atomicOr(w + 7, x), atomicXor(w + 8, x);
    atomicInc(w + 9, 99u), atomicDec(w + 10, 99u);
    atomicAdd(d + 0, (u64)x << 20), atomicMin(d + 1, (u64)x), atomicMax(d + 2, (u64)x);
    atomicAdd(f, (double)(x >> 8));
    u64 old = d[3], seen;  // a maximum by compare and swap
    do seen = old, old = atomicCAS(d + 3, seen, seen > x ? seen : (u64)x); while (old != seen);
    atomicExch(d + 4, 7ull);
}
struct Job {
    const u32* in;
    u32* out;
    u64 add;
    int n;
    unsigned char shift[3];
    double scale;
};
__constant__ u32 TABLE[4] = {3, 1, 4, 1};
__constant__ double HALVES[3] = {0.5, 1.5, 2.5};
__device__ const signed char SIGNED[5] = {-1, 2, -3, 4, -5};
__device__ __noinline__ u64 mixed(u64 a, u32 b, double c) { return a * 31 + b + (u64)c; }
KERNEL by_value(const __grid_constant__ Job job, int twice) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= job.n) return;
    const Job* pointer = &job;
    u32 x = job.in[i] + TABLE[i % 4] + (u32)HALVES[i % 3] * 1000 + (u32)SIGNED[i % 5] + (u32)pointer->add;
    x >>= job.shift[i % 3];
    for (int k = 0; k < twice; ++k) x = (u32)mixed(x, i, job.scale);
    switch (i % 7) {
        case 0: x += 5; break;
        case 1: x *= 3; break;
        case 2: x ^= 77; break;
        case 3: x -= job.in[0]; break;
        case 4: x = __brev(x); break;
        case 5: x = __funnelshift_l(x, x, 5); break;
    }
    job.out[i] = x;
}
KERNEL vectors(const uint4* a, ulonglong2* b, const double2* c, uint2* d) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const uint4 x = a[i];
    const double2 y = c[i];
    b[i] = make_ulonglong2((u64)x.w << 32 | x.x, (u64)y.x);
    d[i] = make_uint2(x.y ^ x.z, (u32)y.y);
}
KERNEL local(const u32* in, u32* out) {  // an array that registers cannot hold
    u32 own[16];
    for (int k = 0; k < 16; ++k) own[in[k] % 16] = k * in[threadIdx.x];
    out[threadIdx.x] = own[in[threadIdx.x] % 16];
}
KERNEL chained(const u32* in, volatile u32* sum, u32* ticket, u32* out) {  // every block waits for the one before it
    __shared__ u32 own;
    if (threadIdx.x == 0) own = atomicAdd(ticket, 1u);
    __syncthreads();
    const u32 block = own;
    u32 x = in[block * 32 + threadIdx.x];
    for (int by = 16; by; by /= 2) x += __shfl_xor_sync(ALL, x, by);
    if (threadIdx.x == 0) {
        u32 before = 0;
        if (block) while (!(before = sum[block - 1]));
        __threadfence();
        sum[block] = before + x;
        out[block] = before + x;
    }
}
// What must not pass
KERNEL racing(int* out) {
    __shared__ int x[64];
    x[threadIdx.x] = 0;
    __syncthreads();
    x[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = x[threadIdx.x ^ 1];
}
KERNEL racing_warp(int* out, int sync) {
    __shared__ int x[64];
    for (int k = 0; k < 2; ++k) {
        x[threadIdx.x] = threadIdx.x + k;
        __syncwarp();
        out[threadIdx.x] += x[threadIdx.x ^ 1];
        if (sync) __syncwarp();
    }
}
KERNEL mixed_accesses(int* out) {
    __shared__ int x;
    if (threadIdx.x == 0) x = 0;
    __syncthreads();
    atomicAdd(&x, 1);
    if (threadIdx.x == 0) out[0] = x;
}
KERNEL unwritten(int* out) {
    __shared__ int x[64];
    if (threadIdx.x != 9) x[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = x[threadIdx.x];
}
KERNEL two_barriers(int* out) {
    if (threadIdx.x % 2) {
        __syncthreads();
        out[threadIdx.x] = 1;
    } else {
        __syncthreads();
        out[threadIdx.x] = 2 * out[0];
    }
}
KERNEL never_met(int* out) {
    if (threadIdx.x == 5) out[0] = __shfl_sync(0x3Fu, out[1], 0);
    else if (threadIdx.x < 5) __syncthreads();
}
KERNEL stranger(int* out) { out[threadIdx.x] = __shfl_sync(0xFFFFu, out[threadIdx.x], 0); }
KERNEL crooked(const char* in, int* out) { out[0] = *(const int*)(in + 2); }
KERNEL crooked_vector(const int* in, int4* out) { out[0] = *(const int4*)(in + 1); }
KERNEL nowhere(const int* in, int* out) { out[0] = in[3]; }
KERNEL outside(int* out, int at) {
    __shared__ int x[32];
    x[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = x[at];
}
KERNEL lasting(volatile int* flag) { while (!*flag); }
KERNEL trapped(int* out) { if (threadIdx.x == 3) __trap(); out[threadIdx.x] = 1; }
KERNEL ordered(u32* out, u32* next) { out[threadIdx.x] = atomicAdd(next, 1u); }
"""


@functools.cache
def module() -> PtxModule:
    return cuda(KERNELS)


def run(kernel: str, *arguments: np.ndarray | int | bytes, grid: int = 1, block: int = 64, **keywords: int) -> None:
    given = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    module().launch(kernel, grid, block, given, **keywords)


def of_words(n: int, kind: type[np.generic] = np.uint32) -> np.ndarray:
    """Words that change fast."""
    return (words(n + 7, 5)[7:] >> np.uint32(3)).astype(kind)


@each_seed
def test_shuffles(seed: int) -> None:
    x, out = of_words(64, np.int32), np.zeros((4, 64), np.int32)
    run("shuffles", x, out, seed=seed)
    lane, warp = np.arange(64) % 32, np.arange(64) // 32 * 32
    assert (out[0] == x[warp + np.arange(64) * 7 % 32]).all()
    assert (out[1] == x[warp + np.where(lane >= 3, lane - 3, lane)]).all()
    assert (out[2] == x[warp + np.where(lane % 16 + 5 < 16, lane + 5, lane)]).all()
    assert (out[3] == x[warp + (lane ^ 9)]).all()


@each_seed
def test_votes_matches_and_reductions_of_warps(seed: int) -> None:
    x, out = of_words(64, np.int32) % 1000, np.zeros((6, 64), np.uint32)
    x[40] = 3
    run("votes", x, out, seed=seed)
    for i in range(64):
        own = x[i // 32 * 32 :][:32]
        assert out[0, i] == sum(int(v & 1) << n for n, v in enumerate(own))
        assert out[1, i] == 1 + 2 * int((own == 3).any())
        assert out[2, i] == sum(1 << n for n, v in enumerate(own) if v % 5 == x[i] % 5)
        assert out[3, i] == (2**32 - 1 + 1) % 2**32
        assert out[4, i] == own.sum()
        assert out[5, i] == (-int(own.max())) % 2**32


@each_seed
def test_parts_of_warps_meet_by_themselves(seed: int) -> None:
    x, out = of_words(64, np.int32), np.zeros(64, np.uint32)
    run("parts_of_warps", x, out, seed=seed)
    for i in range(64):
        lanes = np.arange(i % 32 % 3, 32, 3)
        own = x[i // 32 * 32 + lanes]
        expected = [
            sum(int(v & 1) << n for n, v in zip(lanes, own, strict=True)),
            own.max(),
            (own & 3 == x[i] & 3).sum(),
        ]
        assert out[i] == expected[i % 32 % 3]


@each_seed
def test_barriers_that_count_and_barriers_by_number(seed: int) -> None:
    x, out = of_words(96, np.int32) % 1000, np.zeros(32, np.int32)
    x[77] = 3
    run("counts", x, out, block=96, seed=seed)
    assert out[:3].tolist() == [(x & 1).sum(), 1, 1]
    run("named", out, block=128, seed=seed)
    assert (out == 3 * np.arange(32) + 3 * 32 + 96).all()


@each_seed
@pytest.mark.parametrize("threads", [32, 64, 256, 1024])
def test_a_scan_of_a_block(threads: int, seed: int) -> None:
    x, out = of_words(threads), np.zeros(threads, np.uint32)
    run("scan", x, out, threads - 3, block=threads, seed=seed)
    assert (out[:-3] == np.cumsum(x[:-3], dtype=np.uint32)).all()


@each_seed
def test_a_radix_sort_of_a_block(seed: int) -> None:
    x, out = of_words(256), np.zeros(256, np.uint32)
    run("radix", x, out, block=256, shared_bytes=512, seed=seed)
    assert (out == x[np.argsort(x & 4095, kind="stable")]).all()


@each_seed
def test_histograms_and_atomics(seed: int) -> None:
    x, bins = of_words(4 * 96), np.zeros(64, np.uint32)
    run("histogram", x, bins, len(x) - 5, grid=3, block=96, seed=seed)
    assert (bins == np.bincount(x[:-5] % 64, minlength=64)).all()
    w, d, f = (
        np.array([0, 0, 2**32 - 1, 0, 2**31 - 1, 2**31, 2**32 - 1, 0, 0, 5, 5], np.uint32),
        np.zeros(5, np.uint64),
        np.zeros(1),
    )
    d[1] = 2**64 - 1
    run("atomics", x, w, d, f, grid=4, block=96, seed=seed)
    total, signed = int(x.sum(dtype=np.uint64)), x.view(np.int32)
    assert w[:4].tolist() == [total % 2**32, -total % 2**32, x.min(), x.max()]
    assert w[4:6].view(np.int32).tolist() == [signed.min(), signed.max()]
    assert w[6:].tolist() == [
        *(f.reduce(x) for f in (np.bitwise_and, np.bitwise_or, np.bitwise_xor)),
        (5 + len(x)) % 100,
        (5 - len(x)) % 100,
    ]
    assert d.tolist() == [total << 20, x.min(), x.max(), x.max(), 7]
    assert f[0] == float((x >> 8).sum())


def test_a_job_by_value_tables_of_constants_and_calls() -> None:
    x, out = of_words(300), np.zeros(300, np.uint32)
    job = np.zeros(1, np.dtype({
        "names": ["in", "out", "add", "n", "shift", "scale"], "formats": ["u8", "u8", "u8", "i4", ("u1", 3), "f8"],
        "offsets": [0, 8, 16, 24, 28, 32], "itemsize": 40}))  # fmt: skip
    job[0] = (x.ctypes.data, out.ctypes.data, 2**40 + 9, 290, (0, 3, 7), 1000.75)
    run("by_value", job.tobytes(), 2, grid=3, block=128)
    for i in range(290):
        y = (int(x[i]) + (3, 1, 4, 1)[i % 4] + 1000 * (0, 1, 2)[i % 3] + (-1, 2, -3, 4, -5)[i % 5] + 9) % 2**32
        y >>= (0, 3, 7)[i % 3]
        for _ in range(2):
            y = (y * 31 + i + 1000) % 2**32
        turned = int(f"{y:032b}"[::-1], 2)
        rolled = y << 5 | y >> 27
        y = (y + 5, y * 3, y ^ 77, y - int(x[0]), turned, rolled, y)[i % 7] % 2**32
        assert out[i] == y
    assert not out[290:].any()


def test_loads_and_stores_of_vectors_and_arrays_of_a_thread() -> None:
    a, c = of_words(4 * 64).reshape(64, 4), np.linspace(0, 1e6, 128).reshape(64, 2)
    b, d, out = np.zeros((64, 2), np.uint64), np.zeros((64, 2), np.uint32), np.zeros(64, np.uint32)
    run("vectors", a, b, c, d)
    wide = a.astype(np.uint64)
    assert (b == np.stack((wide[:, 3] << np.uint64(32) | wide[:, 0], c[:, 0].astype(np.uint64)), 1)).all()
    assert (d == np.stack((a[:, 1] ^ a[:, 2], c[:, 1].astype(np.uint32)), 1)).all()
    x = np.arange(64, dtype=np.uint32) * 5 + 3
    run("local", x, out)
    own = {int(x[k]) % 16: k for k in range(16)}
    assert out.tolist() == [own[v % 16] * v for v in x.tolist()]


@each_seed
def test_blocks_that_wait_for_the_one_before(seed: int) -> None:
    x, sums, ticket, out = (
        of_words(32 * 20) % 99,
        np.zeros(20, np.uint32),
        np.zeros(1, np.uint32),
        np.zeros(20, np.uint32),
    )
    run("chained", x, sums, ticket, out, grid=20, block=32, seed=seed, together=4)
    assert (out == np.cumsum(x.reshape(20, 32).sum(1))).all()


def test_the_order_of_threads_is_the_seeds() -> None:
    orders = []
    for seed in (1, 1, 2):
        out, counter = np.zeros(64, np.uint32), np.zeros(1, np.uint32)
        run("ordered", out, counter, seed=seed)
        assert sorted(out) == list(range(64))
        orders.append(out.tolist())
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != list(range(64))


# What must not pass

OUT = np.zeros(64, np.int32)


@each_seed
@pytest.mark.parametrize(
    ("kernel", "arguments", "why"),
    [
        ("racing", (OUT,), r"line \d+: race at byte \d+ of shared memory"),
        ("racing_warp", (OUT, 0), r"race at byte"),
        ("mixed_accesses", (OUT,), r"race at byte"),
        ("unwritten", (OUT,), r"thread 9: line \d+: byte 36 of shared memory, which nobody has written"),
        ("two_barriers", (OUT,), r"barrier 0: thread \d+ is at line \d+, thread \d+ at line \d+"),
        ("never_met", (OUT,), r"deadlock:.* waits at line \d+ for a shuffle, lanes 0x3f;"),
        ("stranger", (OUT,), r"lane \d+ is not among lanes 0xffff"),
        ("crooked", (OUT, OUT), r"address 0x\w+ is no multiple of 4"),
        ("crooked_vector", (OUT, OUT), r"address 0x\w+ is no multiple of 16"),
        ("nowhere", (0, OUT), r"null pointer and 12"),
        ("outside", (OUT, 32), r"byte 128 of 128 bytes of shared memory"),
        ("trapped", (OUT,), r"block 0 thread 3: line \d+: trap"),
    ],
)
def test_mistakes_are_found(kernel: str, arguments: tuple[np.ndarray | int, ...], why: str, seed: int) -> None:
    with pytest.raises(LaunchError, match=f"^{kernel}: .*{why}"):
        run(kernel, *arguments, block=32 if kernel == "outside" else 64, seed=seed)
    run("racing_warp", OUT, 1, seed=seed)  # the machine goes on


def test_threads_that_wait_for_ever_are_stopped() -> None:
    with pytest.raises(LaunchError, match="memory that nobody changes"):
        run("lasting", np.zeros(1, np.int32), block=32)


def test_arguments_are_counted_and_measured() -> None:
    with pytest.raises(LaunchError, match="1 arguments for 2 parameters"):
        run("crooked", OUT)
    with pytest.raises(LaunchError, match="39 bytes for by_value_param_0, which has 40"):
        run("by_value", bytes(39), 1)
