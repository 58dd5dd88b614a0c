// Items of multimodal requests.
#pragma once

#include "strip_fields.h"

namespace SG_NAMESPACE {

struct ItemStrip {
    Addresses at;
    int64_t request[STRIP];
    int n;
};

// Where the items of a strip of draws go: up to four of each.
struct ItemLanes {
    alignas(64) uint32_t word[STRIP];
    alignas(64) int32_t table[STRIP];
    int64_t to[STRIP], request[STRIP];
    int n;
};

static void write_items(const Tables& tables, ItemLanes& lanes, int32_t* values, int32_t* inputs) {
    const int whole = whole_lanes(lanes.n);
    for (int i = lanes.n; i < whole; ++i) lanes.table[i] = lanes.table[0];
    look_up(tables, lanes.word, lanes.table, lanes.n);
    for (int i = 0; i < lanes.n; ++i) {
        const int32_t value = static_cast<int32_t>(lanes.word[i]);
        values[lanes.to[i]] = value;
        inputs[lanes.request[i]] += value;
    }
    lanes.n = 0;
}

static void draw_items(const SgJob& job, ItemStrip& s, ItemLanes& lanes, int64_t field, const int32_t* cell,
                       const int64_t* offsets, int32_t* values, int32_t* inputs) {
    const Tables tables = {job.thresholds, job.values, job.guide, static_cast<int32_t>(job.guide_bits)};
    draw_strip(s.at, s.n, key_of(job));
    const uint32_t* words[4] = {s.at.w0, s.at.w1, s.at.w2, s.at.w3};
    for (int i = 0; i < s.n; ++i) {
        const int64_t request = s.request[i];
        const int64_t first = offsets[request] + 4 * static_cast<int64_t>(item_of(s.at.detail[i]));
        const int64_t rest = offsets[request + 1] - first;
        const int32_t table = job.table[cell[request] * job.fields + field];
        for (int q = 0; q < 4 && q < rest; ++q) {
            lanes.word[lanes.n] = words[q][i];
            lanes.table[lanes.n] = table;
            lanes.to[lanes.n] = first + q;
            lanes.request[lanes.n] = request;
            if (++lanes.n == STRIP) write_items(tables, lanes, values, inputs);
        }
    }
    if (lanes.n) write_items(tables, lanes, values, inputs);
    s.n = 0;
}

static void items(const SgJob& job, int64_t modality, int64_t requests, const int32_t* cell, const uint32_t* ordinal,
                  const int64_t* offsets, int32_t* values, int32_t* inputs) {
    const Purpose purpose = static_cast<Purpose>(IMAGE + modality);
    ItemStrip s;
    ItemLanes lanes;
    s.n = lanes.n = 0;
    for (int64_t request = 0; request < requests; ++request) {
        const int64_t draws = (offsets[request + 1] - offsets[request] + 3) >> 2;
        for (int64_t item = 0; item < draws; ++item) {
            s.at.ordinal[s.n] = ordinal[request];
            s.at.client[s.n] = static_cast<uint32_t>(job.client[cell[request]]);
            s.at.place[s.n] = place_of(static_cast<uint32_t>(job.window[cell[request]]), purpose);
            s.at.detail[s.n] = detail_of(0, static_cast<uint32_t>(item));
            s.request[s.n] = request;
            if (++s.n == STRIP) draw_items(job, s, lanes, job.item_field + modality, cell, offsets, values, inputs);
        }
    }
    if (s.n) draw_items(job, s, lanes, job.item_field + modality, cell, offsets, values, inputs);
}

}  // namespace SG_NAMESPACE
