// Equals law/dependence.py: the Gaussian copula, one field after another.
#pragma once

#include "normal.h"

namespace SG_NAMESPACE {

// Fields as bits: those that depend on an earlier one, and those whose normals that takes.
struct Ties {
    uint32_t mixed, used;
};

// Of the first fields of a matrix with rows of `stride` entries.
SG_DEVICE Ties ties_of(const double* mixing, int fields, int stride) {
    Ties ties = {0, 0};
    for (int f = 1; f < fields; ++f) {
        uint32_t earlier = 0;
        for (int j = 0; j < f; ++j) earlier |= (mixing[f * stride + j] != 0.0 ? 1u : 0u) << j;
        ties.mixed |= (earlier ? 1u : 0u) << f;
        ties.used |= earlier ? earlier | 1u << f : 0;
    }
    return ties;
}

// The words of a request after its copula. Fields without a tie cost nothing; a zero in a row changes no word.
template <int MOST, class Tables = NormalTables>
SG_DEVICE void mix_words(Ties ties, const double* mixing, int fields, uint32_t* words, const Tables& tables = {}) {
    double normals[MOST];
    SG_UNROLL for (int f = 0; f < MOST; ++f) normals[f] = ties.used >> f & 1 ? normal_of_word(words[f], tables) : 0.0;
    SG_UNROLL for (int f = 1; f < MOST; ++f) {
        if (!(ties.mixed >> f & 1)) continue;
        const double* row = mixing + f * fields;
        double z = normals[0] * row[0];
        SG_UNROLL for (int j = 1; j <= f; ++j) z = z + normals[j] * row[j];
        words[f] = word_of_normal(z, tables);
    }
}

template <int MOST>
SG_DEVICE void mix_words(const double* mixing, int fields, uint32_t* words) {
    mix_words<MOST>(ties_of(mixing, fields, fields), mixing, fields, words);
}

}  // namespace SG_NAMESPACE
