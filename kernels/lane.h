// What every header needs: how to mark a lane function, and conversions that every vector extension can do.
//
// A lane function computes one lane: no memory but tables, no branch, so that a loop over a strip of lanes becomes vector
// instructions on a CPU, and a thread on CUDA runs one lane. SG_NAMESPACE keeps builds for different vector extensions
// apart: the linker must not swap their inline functions.
#pragma once

#include <float.h>
#include <stdint.h>
#include <string.h>

#ifndef SG_NAMESPACE
#define SG_NAMESPACE servegen
#endif

#if defined(__CUDACC__)
#define SG_DEVICE __host__ __device__ __forceinline__
#define SG_TABLE static __device__ constexpr
// A double of which an instruction reads as much as it needs; in the text of a kernel it takes two instructions more.
#define SG_CONSTANT static __constant__
#define SG_UNROLL _Pragma("unroll")
#define SG_ROLLED _Pragma("unroll 1")  // where copies of a loop would take too many registers
#else
#if defined(__GNUC__)
#define SG_DEVICE inline __attribute__((always_inline))
#else
#define SG_DEVICE inline
#endif
#define SG_TABLE static constexpr
#define SG_CONSTANT constexpr
#define SG_UNROLL
#define SG_ROLLED
#endif


namespace SG_NAMESPACE {

static_assert(FLT_EVAL_METHOD == 0, "the law needs doubles that are rounded after every operation");

SG_DEVICE int64_t bits_of(double x) {
    int64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

SG_DEVICE double from_bits(int64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// Vector extensions below AVX-512 convert no 64-bit integers. Numbers below 2**52 sit in the low bits of doubles of
// the binade that begins at 2**52, so adding and subtracting does it. Every result is the one of a plain conversion.
constexpr int64_t TWO52_BITS = 0x4330000000000000;
constexpr int64_t TWO84_BITS = 0x4530000000000000;
constexpr double TWO52 = 4503599627370496.0;
constexpr double TWO84_TWO52 = 19342813118337666422669312.0;  // 2**84 + 2**52
constexpr double NEAREST = 6755399441055744.0;                // 1.5 * 2**52
constexpr int64_t NEAREST_BITS = 0x4338000000000000;

#if defined(__AVX512DQ__) || defined(__CUDA_ARCH__)
#define SG_CONVERTS_INT64 1
#else
#define SG_CONVERTS_INT64 0
#endif

// For 0 <= k < 2**52, exact.
SG_DEVICE double small_to_double(int64_t k) {
#if SG_CONVERTS_INT64
    return static_cast<double>(k);
#else
    return from_bits(k | TWO52_BITS) - TWO52;
#endif
}

// For 0 <= k < 2**63, rounded to nearest.
SG_DEVICE double to_double(int64_t k) {
#if SG_CONVERTS_INT64
    return static_cast<double>(k);
#else
    const double high = from_bits((k >> 32) | TWO84_BITS) - TWO84_TWO52;
    return high + from_bits((k & 0xFFFFFFFF) | TWO52_BITS);
#endif
}

// Rounded down, for 0 <= x < 2**52.
SG_DEVICE int64_t small_to_int(double x) {
#if SG_CONVERTS_INT64
    return static_cast<int64_t>(x);
#else
    const double up = x + TWO52;
    return bits_of(up) - TWO52_BITS - (up - TWO52 > x ? 1 : 0);
#endif
}

// Rounded down, for 0 <= x <= 2**62.
SG_DEVICE int64_t to_int(double x) {
#if SG_CONVERTS_INT64
    return static_cast<int64_t>(x);
#else
    const int64_t high = small_to_int(x * 2.3283064365386963e-10);  // 2**-32
    const double rest = x - small_to_double(high) * 4294967296.0;
    return (high << 32) + small_to_int(rest);
#endif
}

}  // namespace SG_NAMESPACE
