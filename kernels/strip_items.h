// Items of multimodal requests.
#pragma once

#include "strip_fields.h"

namespace SG_NAMESPACE {

constexpr int ITEMS_EACH = 4;  // a draw has so many words

// Draws of items, and for how many each is; their items are one behind the other.
struct ItemStrip {
    Addresses at;
    int32_t request[STRIP], items[STRIP];
    int n;
};

// Items by the request they are of.
struct ItemLanes {
    alignas(64) uint32_t word[ITEMS_EACH * STRIP];
    alignas(64) int32_t request[ITEMS_EACH * STRIP], table[ITEMS_EACH * STRIP];
};

// The values of the items of a strip of draws, added to a column as well; returns how many.
static int draw_items(const SgJob& job, ItemStrip& s, int64_t field, const int32_t* cell, int32_t* values,
                      int32_t* inputs) {
    const Tables tables = {job.thresholds, job.values, job.guide, static_cast<int32_t>(job.guide_bits)};
    ItemLanes lanes;
    draw_strip(s.at, s.n, key_of(job));
    int n = 0;
    for (int i = 0; i < s.n; ++i) {  // every draw writes all its words: what is too much is written over by the next one
        uint32_t* word = lanes.word + n;
        word[0] = s.at.w0[i], word[1] = s.at.w1[i], word[2] = s.at.w2[i], word[3] = s.at.w3[i];
        for (int q = 0; q < ITEMS_EACH; ++q) lanes.request[n + q] = s.request[i];
        n += s.items[i];
    }
    for (int i = n; i < whole_lanes(n); ++i) lanes.request[i] = s.request[0];
    for (int i = 0; i < whole_lanes(n); ++i)
        lanes.table[i] = job.table[cell[lanes.request[i]] * static_cast<int>(job.fields) + static_cast<int>(field)];
    for (int a = 0; a < n; a += STRIP) look_up(tables, lanes.word + a, lanes.table + a, n - a < STRIP ? n - a : STRIP);
    for (int i = 0; i < n; ++i) inputs[lanes.request[i]] += static_cast<int32_t>(lanes.word[i]);
    memcpy(values, lanes.word, n * sizeof(int32_t));
    s.n = 0;
    return n;
}

static void items(const SgJob& job, int64_t modality, int64_t requests, const int32_t* cell, const uint32_t* ordinal,
                  const int64_t* offsets, int32_t* values, int32_t* inputs) {
    const Purpose purpose = static_cast<Purpose>(IMAGE + modality);
    ItemStrip s;
    s.n = 0;
    for (int64_t request = 0; request < requests; ++request) {
        int64_t left = offsets[request + 1] - offsets[request];
        uint32_t item = 0;
        do {  // where there are no items, the next request takes the lane
            s.at.ordinal[s.n] = ordinal[request];
            s.at.client[s.n] = static_cast<uint32_t>(job.client[cell[request]]);
            s.at.place[s.n] = place_of(static_cast<uint32_t>(job.window[cell[request]]), purpose);
            s.at.detail[s.n] = detail_of(0, item++);
            s.request[s.n] = static_cast<int32_t>(request);
            s.items[s.n] = static_cast<int32_t>(left < ITEMS_EACH ? left : ITEMS_EACH);
            s.n += left > 0;
            left -= ITEMS_EACH;
            if (s.n == STRIP) values += draw_items(job, s, job.item_field + modality, cell, values, inputs);
        } while (left > 0);
    }
    if (s.n) draw_items(job, s, job.item_field + modality, cell, values, inputs);
}

}  // namespace SG_NAMESPACE
