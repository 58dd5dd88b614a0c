// kernels/slab.cu for the host, and its index arithmetic by name.
#include "on_host.h"

#include "slab.cu"

SG_ON_HOST(SlabJob)

extern "C" {

int64_t test_tiles_of(int64_t requests) { return tiles_of(requests); }

int64_t test_run_of(const int64_t* begin, int64_t low, int64_t high, int64_t request) {
    return run_of(begin, low, high, request);
}

void test_place(const SlabJob* job, int64_t request, int64_t* out) {
    const Place at = place_of_request(*job, request);
    out[0] = at.run;
    out[1] = at.begin;
    out[2] = at.cell;
    out[3] = at.ordinal;
}

void test_tile(const SlabJob* job, int64_t tile) { tile_at(*job, tile); }

// The thread that a block and a place in it stand for.
int64_t test_thread(int64_t block, int64_t threads, int64_t thread) {
    blockIdx.x = block;
    blockDim.x = threads;
    threadIdx.x = thread;
    return SG_THREAD;
}

double test_reordered(double x) { return from_ordered(ordered(x)); }
uint64_t test_ordered(double x) { return ordered(x); }

int64_t test_job_bytes() { return sizeof(SlabJob); }

}  // extern "C"

#ifdef PROBES
#include "../bench/device_probe.cu"

// The first block of a probe.
#define TEST_PROBE(NAME, ...)                                                          \
    blockIdx.x = 0;                                                                    \
    blockDim.x = threads;                                                              \
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) NAME(__VA_ARGS__);

extern "C" {

void test_probe_philox(int64_t threads, uint32_t* out, int64_t n, int64_t draws) { TEST_PROBE(probe_philox, out, n, draws) }
void test_probe_gamma(int64_t threads, double* out, int64_t n, double d, double c, double log_d, double boost) {
    TEST_PROBE(probe_gamma, out, n, d, c, log_d, boost)
}
void test_probe_gamma_f32(int64_t threads, float* out, int64_t n, float shape) {
    TEST_PROBE(probe_gamma_f32, out, n, shape)
}
void test_probe_gather(int64_t threads, const uint4* table, uint32_t* out, int64_t n, uint32_t mask) {
    TEST_PROBE(probe_gather, table, out, n, mask)
}

}  // extern "C"
#endif
