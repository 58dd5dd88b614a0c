// Strips of lanes: what the loops of the CPU driver work on together. Only strips.cpp includes this and the strip_*.h;
// nothing in them may be shared between builds for different vector extensions, so no standard library.
#pragma once

#include "elementary.h"
#include "job.h"
#include "strip_philox.h"
#include "variates.h"

namespace SG_NAMESPACE {

constexpr int STRIP = 256;  // lanes that are worked on together
constexpr int LANES = 16;   // strips are filled up to a multiple of this

static inline int whole_lanes(int n) { return (n + LANES - 1) & -LANES; }

static inline Key key_of(const SgJob& job) {
    return {static_cast<uint32_t>(job.key0), static_cast<uint32_t>(job.key1)};
}

// The width of records as constants, and work with it: every width that there may be has its own loops.
template <int FIELDS, bool ORDINAL>
struct Width {
    static constexpr int WORDS = record_words(FIELDS, ORDINAL);
    static_assert(FIELDS <= SCALAR_FIELDS, "a record holds the fields of one request");
};

template <int FIELDS = SCALAR_FIELDS, class Work>
static void with_width(const SgFields& fields, const Work& work) {
    if constexpr (FIELDS > 1) {
        if (fields.count < FIELDS) return with_width<FIELDS - 1>(fields, work);
    }
    if (fields.ordinal) work(Width<FIELDS, true>{});
    else work(Width<FIELDS, false>{});
}

// Room for a strip that is filled by whole vectors, wherever in it they begin.
constexpr int FILLED = STRIP + LANES;

// The addresses of a strip and its words.
struct Addresses {
    alignas(64) uint32_t ordinal[FILLED], client[FILLED], place[FILLED], detail[FILLED];
    alignas(64) uint32_t w0[STRIP], w1[STRIP], w2[STRIP], w3[STRIP];
};

// Runs of lanes are short where clients are many: whole vectors beyond their end are faster than loops of a few lanes.
template <class T, class Value>
static inline void fill(T* to, int n, const Value& value) {
    for (int i = 0; i < n; i += LANES)
        for (int j = 0; j < LANES; ++j) to[i + j] = value(i + j);
}

static void draw_strip(Addresses& at, int n, Key key) {
    const uint32_t* const counter[4] = {at.ordinal, at.client, at.place, at.detail};
    uint32_t* const words[4] = {at.w0, at.w1, at.w2, at.w3};
    philox_of(counter, whole_lanes(n), key, words);
}

}  // namespace SG_NAMESPACE
