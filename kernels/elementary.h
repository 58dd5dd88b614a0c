// Equals log and exp of law/elementary.py, the same bits everywhere.
//
// Plain + - * / and square roots in the order of the Python text; compile without contraction of a * b + c.
#pragma once

#if !defined(__CUDACC__)
#include <math.h>
#endif

#include "lane.h"

namespace SG_NAMESPACE {

SG_CONSTANT double LN2_HIGH = 0.6931471805598903, LN2_LOW = 5.497923018708371e-14;
SG_CONSTANT double LOG2_E = 1.4426950408889634;
constexpr int64_t SQRT_HALF_BITS = 0x3FE6A09E667F3BCD, ONE_BITS = 0x3FF0000000000000;
constexpr double EXP_MIN = -708.0, EXP_MAX = 709.0;

// Terms of a polynomial as a type.
#if defined(__CUDACC__)
#define SG_TERMS(NAME, COUNT, ...)                                            \
    static __constant__ double NAME##_IN_CONSTANTS[COUNT] = {__VA_ARGS__};    \
    struct NAME {                                                             \
        static constexpr int count = COUNT;                                   \
        static __device__ __forceinline__ double term(int i) {                \
            return NAME##_IN_CONSTANTS[i];                                    \
        }                                                                     \
    };
#else
#define SG_TERMS(NAME, COUNT, ...)                           \
    struct NAME {                                            \
        static constexpr int count = COUNT;                  \
        static SG_DEVICE constexpr double term(int i) {      \
            constexpr double terms[COUNT] = {__VA_ARGS__};   \
            return terms[i];                                 \
        }                                                    \
    };
#endif

SG_TERMS(LogTerms, 7,
         0.666666666666667, 0.3999999999989889, 0.28571428626253836, 0.22222211089379496, 0.1818289243253687,
         0.15331611722055008, 0.14617807153417325)
SG_TERMS(ExpTerms, 10,
         0.5000000000000001, 0.16666666666666669, 0.041666666666623824, 0.008333333333330039,
         0.0013888888917367081, 0.00019841269863171557, 2.4801521057868204e-05, 2.7557268276905696e-06,
         2.7620201591031547e-07, 2.5100472505694996e-08)

#undef SG_TERMS

template <class Terms, int I>
struct Horner {
    static SG_DEVICE double down(double x, double total) {
        return Horner<Terms, I - 1>::down(x, (total + Terms::term(I)) * x);
    }
};

template <class Terms>
struct Horner<Terms, 0> {
    static SG_DEVICE double down(double, double total) { return total + Terms::term(0); }
};

template <class Terms>
SG_DEVICE double horner(double x) {
    return Horner<Terms, Terms::count - 2>::down(x, x * Terms::term(Terms::count - 1));
}

// a / b for normal b and a quotient that is 0 or normal. A device's own division is this and a guard, around which its
// compiler orders nothing: four operations sharpen the reciprocal, and a remainder rounds the quotient as IEEE 754 does.
SG_DEVICE double quotient(double a, double b) {
#if defined(__CUDA_ARCH__)
    double inverse;
    asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(inverse) : "d"(b));
    double error = __fma_rn(-b, inverse, 1.0);
    error = __fma_rn(error, error, error);
    inverse = __fma_rn(inverse, error, inverse);
    inverse = __fma_rn(inverse, __fma_rn(-b, inverse, 1.0), inverse);
    const double near = a * inverse;
    return __fma_rn(__fma_rn(-b, near, a), inverse, near);
#else
    return a / b;
#endif
}

// k * 2**52, of negative numbers as well.
SG_DEVICE int64_t shifted_left_52(int64_t k) { return static_cast<int64_t>(static_cast<uint64_t>(k) << 52); }

SG_DEVICE double log(double x) {
    const int64_t bits = bits_of(x);
    // an arithmetic shift by 52, in words of 32 bits: the exponent sits in the upper one
    const int32_t exponent = static_cast<int32_t>((bits - SQRT_HALF_BITS) >> 32) >> 20;
    const double mantissa = from_bits(bits - shifted_left_52(exponent));
    const double s = quotient(mantissa - 1.0, mantissa + 1.0);
    const double z = s * s;
    double tail = horner<LogTerms>(z);
    tail *= z;
    tail *= s;
    const double k = static_cast<double>(exponent);
    tail += k * LN2_LOW;
    tail += s + s;
    tail += k * LN2_HIGH;
    return tail;
}

// For EXP_MIN <= x <= EXP_MAX.
SG_DEVICE double exp_inside(double x) {
    // rounds to nearest even, as rint does, and leaves the whole number in the low bits
    const double shifted = x * LOG2_E + NEAREST;
    const double k = shifted - NEAREST;
    const double r = (x - k * LN2_HIGH) - k * LN2_LOW;
    double total = horner<ExpTerms>(r);
    total *= r * r;
    total += r;
    total += 1.0;
    total *= from_bits(shifted_left_52(bits_of(shifted) - NEAREST_BITS) + ONE_BITS);
    return total;
}

SG_DEVICE double exp(double x) {
    x = x > EXP_MIN ? x : EXP_MIN;
    return exp_inside(x < EXP_MAX ? x : EXP_MAX);
}

}  // namespace SG_NAMESPACE
