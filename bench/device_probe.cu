// What the device can do at best: draws that stay in registers, and reads at random places. Compiled by NVRTC behind
// kernels/slab.cu (bench/device_check.py).
extern "C" __global__ void __launch_bounds__(256) probe_philox(uint32_t* out, int64_t n, int64_t draws) {
    const int64_t i = SG_THREAD;
    if (i >= n) return;
    uint32_t sum = 0;
    for (int64_t d = 0; d < draws; ++d) {
        const Words words = draw(Key{1, 2}, DATA, static_cast<uint32_t>(i), static_cast<uint32_t>(d), 0);
        sum ^= words.w0 ^ words.w1 ^ words.w2 ^ words.w3;
    }
    if (sum == 1) out[0] = sum;
}

// The constants of a shape come in: a slab's cells have them ready as well.
extern "C" __global__ void __launch_bounds__(256) probe_gamma(double* out, int64_t n, double d, double c, double log_d,
                                                              double boost) {
    const int64_t i = SG_THREAD;
    if (i >= n) return;
    const double gap = log_gap(GAMMA, Key{1, 2}, static_cast<uint32_t>(i), 0, 0, GapConstants{d, c, log_d, boost});
    if (gap == 1.0) out[0] = gap;
}

// The same method in float32, with the device's own functions: what exactness to the bit costs. A log of a gap.
extern "C" __global__ void __launch_bounds__(256) probe_gamma_f32(float* out, int64_t n, float shape) {
    const int64_t i = SG_THREAD;
    if (i >= n) return;
    const float d = (shape < 1.0f ? shape + 1.0f : shape) - 1.0f / 3.0f, c = 1.0f / sqrtf(9.0f * d);
    float gap = 0.0f;
    for (uint32_t attempt = 0; attempt < MAX_ATTEMPTS; ++attempt) {
        const Words words = draw(Key{1, 2}, GAP, static_cast<uint32_t>(i), 0, 0, attempt);
        const float radius = sqrtf(-2.0f * logf((static_cast<float>(words.w0) + 0.5f) * 2.3283064e-10f));
        const float x = radius * cosf(1.4629181e-9f * static_cast<float>(words.w1)), v = 1.0f + c * x;
        if (v <= 0.0f) continue;
        const float log_v = 3.0f * logf(v), u = (static_cast<float>(words.w2) + 0.5f) * 2.3283064e-10f;
        if (logf(u) < 0.5f * x * x + d - d * v * v * v + d * log_v) {
            gap = logf(d) + log_v;
            if (shape < 1.0f) gap += logf((static_cast<float>(words.w3) + 0.5f) * 2.3283064e-10f) / shape;
            break;
        }
    }
    if (gap == 1.0f) out[0] = gap;
}

extern "C" __global__ void __launch_bounds__(256) probe_gather(const uint4* table, uint32_t* out, int64_t n,
                                                               uint32_t mask) {
    const int64_t i = SG_THREAD;
    if (i >= n) return;
    const uint4* at = table + 2 * ((static_cast<uint32_t>(i) * 2654435761u) & mask);
    const uint4 a = at[0], b = at[1];
    if ((a.x ^ a.y ^ b.x ^ b.w) == 1) out[0] = a.z;
}
