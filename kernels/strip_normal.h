// Words to standard normals and back, for whole strips. Lanes look up rows one by one; AVX-512 holds the rows that nearly
// all lanes need in registers, where a permutation finds a term of eight lanes at once. The bits are those of normal.h.
#pragma once

#include "normal.h"
#include "strip.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace SG_NAMESPACE {

#if defined(__AVX512F__)

constexpr int LAST = 32;  // rows: all of MASS; the last eight binades of QUANTILE, all but 0.4 % of the words

struct LastRows {
    alignas(64) double term[NORMAL_TERMS][LAST];
};

static constexpr LastRows last_rows(const double* table, int rows) {
    LastRows last = {};
    for (int k = 0; k < NORMAL_TERMS; ++k)
        for (int row = 0; row < LAST; ++row) last.term[k][row] = table[(rows - LAST + row) * NORMAL_TERMS + k];
    return last;
}

static constexpr LastRows LAST_QUANTILE = last_rows(QUANTILE, QUANTILE_ROWS), LAST_MASS = last_rows(MASS, MASS_ROWS);

// Term k of the rows that the low five bits of `row` name.
static inline __m512d term_at(const LastRows& last, int k, __m512i row, __mmask8 upper) {
    const double* term = last.term[k];
    const __m512d below = _mm512_permutex2var_pd(_mm512_load_pd(term), row, _mm512_load_pd(term + 8));
    const __m512d above = _mm512_permutex2var_pd(_mm512_load_pd(term + 16), row, _mm512_load_pd(term + 24));
    return _mm512_mask_blend_pd(upper, below, above);
}

static inline __m512d at_last(const LastRows& last, __m512i row, __m512d t) {
    const __mmask8 upper = _mm512_test_epi64_mask(row, _mm512_set1_epi64(16));
    __m512d total = _mm512_mul_pd(term_at(last, NORMAL_TERMS - 1, row, upper), t);
    for (int k = NORMAL_TERMS - 2; k > 0; --k)
        total = _mm512_mul_pd(_mm512_add_pd(total, term_at(last, k, row, upper)), t);
    return _mm512_add_pd(total, term_at(last, 0, row, upper));
}

static void normals_of(const uint32_t* word, int n, double* z) {
    const int64_t first = FIRST_QUARTER + QUANTILE_ROWS - LAST;
    for (int i = 0; i < n; i += 8) {
        const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(word + i));
        const __m256i folded = _mm256_min_epu32(w, _mm256_xor_si256(w, _mm256_set1_epi32(-1)));
        const __m512i bits = _mm512_castpd_si512(_mm512_add_pd(_mm512_cvtepi32_pd(folded), _mm512_set1_pd(0.5)));
        const __m512i row = _mm512_sub_epi64(_mm512_srli_epi64(bits, QUARTER_BITS), _mm512_set1_epi64(first));
        const __m512i place = _mm512_and_si512(bits, _mm512_set1_epi64((int64_t{1} << QUARTER_BITS) - 1));
        const __m512d one = _mm512_set1_pd(1.0);
        const __m512d t = _mm512_sub_pd(_mm512_or_pd(_mm512_castsi512_pd(place), one), one);
        const __m512i sign = _mm512_slli_epi64(_mm512_cvtepu32_epi64(_mm256_srli_epi32(~w, 31)), 63);
        _mm512_storeu_pd(z + i, _mm512_xor_pd(at_last(LAST_QUANTILE, row, t), _mm512_castsi512_pd(sign)));
        const __mmask8 other = _mm512_cmplt_epi64_mask(row, _mm512_setzero_si512());
        if (__builtin_expect(other, 0))
            for (int j = 0; j < 8; ++j)
                if (other >> j & 1) z[i + j] = normal_of_word(word[i + j]);
    }
}

static void words_of(const double* z, int n, uint32_t* word) {
    const __m512d nearest = _mm512_set1_pd(NEAREST);
    for (int i = 0; i < n; i += 8) {
        const __m512d at = _mm512_loadu_pd(z + i), size = _mm512_min_pd(_mm512_abs_pd(at), _mm512_set1_pd(Z_LIMIT));
        const __m512d x = _mm512_mul_pd(size, _mm512_set1_pd(ROWS_PER_UNIT));
        const __m512d shifted = _mm512_add_pd(_mm512_sub_pd(x, _mm512_set1_pd(0.5)), nearest);
        const __m512d t = _mm512_sub_pd(x, _mm512_sub_pd(shifted, nearest));
        const __m256i between = _mm512_cvttpd_epi32(at_last(LAST_MASS, _mm512_castpd_si512(shifted), t));
        const __mmask8 lower = _mm512_cmp_pd_mask(at, _mm512_setzero_pd(), _CMP_LT_OQ);
        const __m256i offset = _mm256_mask_xor_epi32(between, lower, between, _mm256_set1_epi32(-1));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(word + i), _mm256_add_epi32(offset, _mm256_set1_epi32(INT32_MIN)));
    }
}

#else

static void normals_of(const uint32_t* word, int n, double* z) {
    for (int i = 0; i < n; ++i) z[i] = normal_of_word(word[i]);
}

static void words_of(const double* z, int n, uint32_t* word) {
    for (int i = 0; i < n; ++i) word[i] = word_of_normal(z[i]);
}

#endif

}  // namespace SG_NAMESPACE
