// Philox for whole strips. x86 multiplies the even words of a vector into 64 bits, whatever the odd ones are: lanes go
// through the rounds in two halves, which compilers do not find. The bits are those of philox.h.
#pragma once

#include "philox.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace SG_NAMESPACE {

#if defined(__AVX512F__)
#define SG_WIDE(NAME) _mm512_##NAME
using Wide = __m512i;
static inline Wide wide(const uint32_t* at) { return _mm512_load_si512(at); }
static inline void put(uint32_t* at, Wide words) { _mm512_store_si512(at, words); }
static inline Wide mixed(Wide a, Wide b, Wide c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
static inline Wide joined(Wide even, Wide odd) { return _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32)); }
#elif defined(__AVX2__)
#define SG_WIDE(NAME) _mm256_##NAME
using Wide = __m256i;
static inline Wide wide(const uint32_t* at) { return _mm256_load_si256(reinterpret_cast<const Wide*>(at)); }
static inline void put(uint32_t* at, Wide words) { _mm256_store_si256(reinterpret_cast<Wide*>(at), words); }
static inline Wide mixed(Wide a, Wide b, Wide c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
static inline Wide joined(Wide even, Wide odd) { return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA); }
#elif defined(__SSE2__)
#define SG_WIDE(NAME) _mm_##NAME
using Wide = __m128i;
static inline Wide wide(const uint32_t* at) { return _mm_load_si128(reinterpret_cast<const Wide*>(at)); }
static inline void put(uint32_t* at, Wide words) { _mm_store_si128(reinterpret_cast<Wide*>(at), words); }
static inline Wide mixed(Wide a, Wide b, Wide c) { return _mm_xor_si128(_mm_xor_si128(a, b), c); }
static inline Wide joined(Wide even, Wide odd) {
    return _mm_or_si128(_mm_srli_epi64(_mm_slli_epi64(even, 32), 32), _mm_slli_epi64(odd, 32));
}
#endif

#if defined(__SSE2__)

// The words of the even lanes of some counters, below anything; `keys` of every round.
static inline void philox_even(const Wide* counter, const Wide (*keys)[2], Wide* words) {
    const Wide m0 = SG_WIDE(set1_epi32)(static_cast<int>(PHILOX_M0)), m1 = SG_WIDE(set1_epi32)(static_cast<int>(PHILOX_M1));
    Wide c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < PHILOX_ROUNDS; ++round) {
        const Wide even = SG_WIDE(mul_epu32)(c0, m0), odd = SG_WIDE(mul_epu32)(c2, m1);
        c0 = mixed(SG_WIDE(srli_epi64)(odd, 32), c1, keys[round][0]);
        c1 = odd;
        c2 = mixed(SG_WIDE(srli_epi64)(even, 32), c3, keys[round][1]);
        c3 = even;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

// words[k][i]: word k of lane i; both aligned, `n` whole lanes.
static inline void philox_of(const uint32_t* const* counter, int n, Key key, uint32_t* const* words) {
    constexpr int EACH = sizeof(Wide) / sizeof(uint32_t);
    Wide keys[PHILOX_ROUNDS][2];
    for (int round = 0; round < PHILOX_ROUNDS; ++round) {
        keys[round][0] = SG_WIDE(set1_epi32)(static_cast<int>(key.k0));
        keys[round][1] = SG_WIDE(set1_epi32)(static_cast<int>(key.k1));
        key.k0 += PHILOX_W0;
        key.k1 += PHILOX_W1;
    }
    for (int i = 0; i < n; i += EACH) {
        Wide low[4], high[4], even[4], odd[4];
        for (int k = 0; k < 4; ++k) low[k] = wide(counter[k] + i);
        for (int k = 0; k < 4; ++k) high[k] = SG_WIDE(srli_epi64)(low[k], 32);
        philox_even(low, keys, even);
        philox_even(high, keys, odd);
        for (int k = 0; k < 4; ++k) put(words[k] + i, joined(even[k], odd[k]));
    }
}

#else

static inline void philox_of(const uint32_t* const* counter, int n, Key key, uint32_t* const* words) {
    const uint32_t *c0 = counter[0], *c1 = counter[1], *c2 = counter[2], *c3 = counter[3];
    uint32_t *w0 = words[0], *w1 = words[1], *w2 = words[2], *w3 = words[3];
    for (int i = 0; i < n; ++i) {
        const Words of = philox4x32({c0[i], c1[i], c2[i], c3[i]}, key);
        w0[i] = of.w0;
        w1[i] = of.w1;
        w2[i] = of.w2;
        w3[i] = of.w3;
    }
}

#endif

}  // namespace SG_NAMESPACE
