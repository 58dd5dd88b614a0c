// The functions of the headers over arrays, for tests/test_kernels.py: one argument list for all, results in `out`.
#pragma once

#include "context.h"
#include "dependence.h"
#include "position.h"
#include "request.h"
#include "tables.h"
#if defined(__CUDACC__)
#include "variates.h"
#else
#include "strip_normal.h"
#endif

namespace SG_NAMESPACE {

// What a function of the headers reads and writes, lane by lane; unused pointers are null.
struct ShimArrays {
    const double* x[4];
    const int64_t* k[4];
    const uint32_t* w[4];
    double* y[5];
    int64_t* m[4];
    const void* table[3];
    int64_t size;
};

using ShimFunction = void (*)(const ShimArrays&, int64_t);

#if defined(__CUDACC__)
#define SG_SHIM(NAME, ...)                                                                             \
    extern "C" __global__ void shim_##NAME(const __grid_constant__ ShimArrays a, int64_t n) {          \
        const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;                 \
        if (i < n) {                                                                                   \
            __VA_ARGS__;                                                                               \
        }                                                                                              \
    }
#else
#define SG_SHIM(NAME, ...)                                     \
    static void shim_##NAME(const ShimArrays& a, int64_t n) {  \
        for (int64_t i = 0; i < n; ++i) {                      \
            __VA_ARGS__;                                       \
        }                                                      \
    }
#endif

#define SG_WORDS Words{a.w[0][i], a.w[1][i], a.w[2][i], a.w[3][i]}

SG_SHIM(philox4x32, const Words words = philox4x32(SG_WORDS, Key{static_cast<uint32_t>(a.k[0][0]),
                                                                  static_cast<uint32_t>(a.k[0][1])});
        a.m[0][i] = words.w0; a.m[1][i] = words.w1; a.m[2][i] = words.w2; a.m[3][i] = words.w3)
SG_SHIM(draw, const Words words = draw(Key{static_cast<uint32_t>(a.k[0][0]), static_cast<uint32_t>(a.k[0][1])},
                                       static_cast<Purpose>(a.k[1][0]), a.w[0][i], a.w[1][i], a.w[2][i], a.w[3][i],
                                       static_cast<uint32_t>(a.k[1][1]), static_cast<uint32_t>(a.k[1][2]));
        a.m[0][i] = words.w0; a.m[1][i] = words.w1; a.m[2][i] = words.w2; a.m[3][i] = words.w3)
SG_SHIM(log, a.y[0][i] = log(a.x[0][i]))
SG_SHIM(exp, a.y[0][i] = exp(a.x[0][i]))
SG_SHIM(quotient, a.y[0][i] = quotient(a.x[0][i], a.x[1][i]))
SG_SHIM(normal_of_word, a.y[0][i] = normal_of_word(a.w[0][i]))
SG_SHIM(word_of_normal, a.m[0][i] = word_of_normal(a.x[0][i]))
SG_SHIM(uniform32, a.y[0][i] = uniform32(a.w[0][i]))
SG_SHIM(uniform52, a.y[0][i] = uniform52(a.w[0][i], a.w[1][i]))
SG_SHIM(log_weibull, a.y[0][i] = log_weibull(SG_WORDS, a.x[0][i]))
SG_SHIM(try_log_gap,  // all by the same draw
        const LogGap gap = try_log_gap(static_cast<uint8_t>(a.k[0][0]), SG_WORDS,
                                       GapConstants{a.x[0][i], a.x[1][i], a.x[2][i], a.x[3][i]});
        a.y[0][i] = gap.log_gap; a.y[1][i] = gap.accepted ? 1.0 : 0.0)
SG_SHIM(gap_constants, const GapConstants of = gap_constants(static_cast<uint8_t>(a.k[0][i]), a.x[0][i]);
        a.y[0][i] = of.d; a.y[1][i] = of.c; a.y[2][i] = of.log_d; a.y[3][i] = of.boost)
SG_SHIM(equilibrium_constants,
        const FirstGap gap = equilibrium_constants(static_cast<uint8_t>(a.k[0][i]), a.x[0][i]);
        a.y[0][i] = gap.of.d; a.y[1][i] = gap.of.c; a.y[2][i] = gap.of.log_d; a.y[3][i] = gap.of.boost;
        a.y[4][i] = gap.power; a.m[0][i] = first_draw(static_cast<uint8_t>(a.k[0][i])))
SG_SHIM(dispersion, a.y[0][i] = dispersion(static_cast<uint8_t>(a.k[0][i]), a.x[0][i]))
SG_SHIM(gap_ticks, a.m[0][i] = gap_ticks(a.x[0][i], a.x[1][i], a.x[2][i]))
SG_SHIM(tick_bits, a.m[0][i] = tick_bits(a.k[0][i]))
SG_SHIM(on_circle, a.m[0][i] = on_circle(a.k[0][i], a.k[1][i], a.x[0][i], a.k[2][i]))
SG_SHIM(from_start, const FromStart start = from_start(a.k[0][i], a.k[1][i]); a.m[0][i] = start.x;
        a.m[1][i] = start.inside)
SG_SHIM(clock_us, a.m[0][i] = static_cast<int64_t>(clock_us(static_cast<uint64_t>(a.k[0][i]),
                                                             static_cast<uint64_t>(a.k[1][i]),
                                                             static_cast<uint64_t>(a.k[2][i]),
                                                             static_cast<uint64_t>(a.k[3][i]))))

SG_SHIM(reason_tokens, a.m[0][i] = reason_tokens(static_cast<int32_t>(a.k[0][i]), static_cast<int32_t>(a.k[1][i])))
SG_SHIM(cut_input, a.m[0][i] = cut_input(static_cast<int32_t>(a.k[0][i]), static_cast<int32_t>(a.k[1][i])))
SG_SHIM(cut_output, a.m[0][i] = cut_output(static_cast<int32_t>(a.k[0][i]), static_cast<int32_t>(a.k[1][i]),
                                           static_cast<int32_t>(a.k[2][i])))

SG_SHIM(find_bin, const Tables tables = {static_cast<const uint32_t*>(a.table[0]), nullptr,
                                         static_cast<const int32_t*>(a.table[1]), static_cast<int32_t>(a.size)};
        a.m[0][i] = find_bin(a.w[0][i], a.k[0][i], tables))

// Words of `size` fields in w, mixed ones in m; the matrix in x[0].
SG_SHIM(mix_words, const int fields = static_cast<int>(a.size); uint32_t words[4] = {};
        for (int f = 0; f < fields; ++f) words[f] = a.w[f][i];
        mix_words<4>(a.x[0], fields, words);
        for (int f = 0; f < fields; ++f) a.m[f][i] = words[f])

// Numbers that the law has as well, in the order of tests/test_kernels.py.
SG_SHIM(constants, const int64_t values[] = {
            SCALAR_FIELDS, TURN_FIELDS, MODALITIES, INPUT, OUTPUT, RATIO_STEPS, EXACT, RENEWAL, SERVEGEN, INDEPENDENT,
            COMONOTONE, COPULA, COUNT, GAP, DATA, IMAGE, AUDIO, VIDEO, TURN, MAX_ATTEMPTS, RENEWAL_BITS, WINDOW_TICKS};
        const int64_t count = sizeof values / sizeof values[0];
        a.m[0][i] = i < count ? values[i] : count)

#undef SG_WORDS
#undef SG_SHIM

#if !defined(__CUDACC__)
// The same two functions as strips compute them.
static void shim_normals_of(const ShimArrays& a, int64_t n) {
    for (int64_t i = 0; i + STRIP <= n; i += STRIP) normals_of(a.w[0] + i, STRIP, a.y[0] + i);
}

static void shim_words_of(const ShimArrays& a, int64_t n) {
    alignas(64) uint32_t word[STRIP];
    for (int64_t i = 0; i + STRIP <= n; i += STRIP) {
        words_of(a.x[0] + i, STRIP, word);
        for (int j = 0; j < STRIP; ++j) a.m[0][i + j] = word[j];
    }
}

static bool same(const char* a, const char* b) {
    while (*a && *a == *b) ++a, ++b;
    return *a == *b;
}

static void* function(const char* name) {
    struct Entry {
        const char* name;
        ShimFunction function;
    };
#define SG_ENTRY(NAME) {#NAME, shim_##NAME}
    static const Entry entries[] = {
        SG_ENTRY(philox4x32), SG_ENTRY(draw),       SG_ENTRY(log),            SG_ENTRY(exp),
        SG_ENTRY(uniform32),  SG_ENTRY(uniform52),  SG_ENTRY(normal_of_word), SG_ENTRY(word_of_normal),
        SG_ENTRY(normals_of), SG_ENTRY(words_of),   SG_ENTRY(log_weibull),    SG_ENTRY(try_log_gap),
        SG_ENTRY(gap_ticks),  SG_ENTRY(tick_bits),  SG_ENTRY(on_circle),      SG_ENTRY(clock_us),
        SG_ENTRY(from_start), SG_ENTRY(find_bin),   SG_ENTRY(mix_words),      SG_ENTRY(cut_input),
        SG_ENTRY(cut_output),            SG_ENTRY(gap_constants), SG_ENTRY(equilibrium_constants),
        SG_ENTRY(dispersion), SG_ENTRY(reason_tokens), SG_ENTRY(constants), SG_ENTRY(quotient),
    };
#undef SG_ENTRY
    for (const Entry& entry : entries)
        if (same(entry.name, name)) return reinterpret_cast<void*>(entry.function);
    return nullptr;
}
#endif

}  // namespace SG_NAMESPACE
