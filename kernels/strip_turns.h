// Turns of conversations: how many there are, how long after one another they come, and their fields; ids of sessions.
#pragma once

#include "strip_fields.h"

namespace SG_NAMESPACE {

// Addresses and words of `n` lanes from `a` on; `cell` gets their cells, up to whole lanes.
static void draw_lanes(const SgJob& job, const SgLanes& lanes, int64_t a, int n, Purpose purpose, Addresses& at,
                       int32_t* cell) {
    const int whole = whole_lanes(n);
    memcpy(cell, lanes.cell + a, n * sizeof(int32_t));
    memcpy(at.ordinal, lanes.ordinal + a, n * sizeof(uint32_t));
    for (int i = n; i < whole; ++i) cell[i] = cell[0];
    for (int i = 0; i < whole; ++i) at.client[i] = static_cast<uint32_t>(job.client[cell[i]]);
    for (int i = 0; i < whole; ++i) at.place[i] = place_of(static_cast<uint32_t>(job.window[cell[i]]), purpose);
    if (!lanes.turn) memset(at.detail, 0, whole * sizeof(uint32_t));
    else
        for (int i = 0; i < n; ++i) at.detail[i] = detail_of(static_cast<uint32_t>(lanes.turn[a + i]), 0);
    draw_strip(at, n, key_of(job));
}

static int strip_at(int64_t count, int64_t a) { return count - a < STRIP ? static_cast<int>(count - a) : STRIP; }

static void turn_counts(const SgJob& job, const SgTurns& turns, const SgLanes& lanes, int32_t* counts) {
    const Tables tables = {turns.count_thresholds, turns.count_values, turns.count_guide,
                           static_cast<int32_t>(turns.count_guide_bits)};
    Addresses at;
    alignas(64) int32_t cell[STRIP], model[STRIP];
    for (int64_t a = 0; a < lanes.count; a += STRIP) {
        const int n = strip_at(lanes.count, a), whole = whole_lanes(n);
        draw_lanes(job, lanes, a, n, TURN, at, cell);
        for (int i = 0; i < whole; ++i) model[i] = turns.model[cell[i]];
        look_up(tables, at.w0, model, n);
        memcpy(counts + a, at.w0, n * sizeof(int32_t));
    }
}

static void turn_words(const SgJob& job, const SgLanes& lanes, uint32_t* first, uint32_t* second) {
    Addresses at;
    alignas(64) int32_t cell[STRIP];
    for (int64_t a = 0; a < lanes.count; a += STRIP) {
        const int n = strip_at(lanes.count, a);
        draw_lanes(job, lanes, a, n, TURN, at, cell);
        memcpy(first + a, at.w0, n * sizeof(uint32_t));
        memcpy(second + a, at.w1, n * sizeof(uint32_t));
    }
}

static void turn_gaps(const SgTurns& turns, int64_t count, const int32_t* model, const uint32_t* first,
                      const uint32_t* second, int64_t* gap_us) {
    const Tables tables = {turns.gap_thresholds, turns.gap_values, turns.gap_guide,
                           static_cast<int32_t>(turns.gap_guide_bits)};
    alignas(64) uint32_t word[STRIP];
    alignas(64) int32_t table[STRIP];
    for (int64_t a = 0; a < count; a += STRIP) {
        const int n = strip_at(count, a), whole = whole_lanes(n);
        memcpy(word, first + a, n * sizeof(uint32_t));
        memcpy(table, model + a, n * sizeof(int32_t));
        for (int i = n; i < whole; ++i) word[i] = 0, table[i] = table[0];
        look_up(tables, word, table, n);
        for (int i = 0; i < n; ++i) {  // bins are less than 2**32 wide
            const uint64_t place = static_cast<uint64_t>(turns.gap_width_us[word[i]]) * second[a + i] >> 32;
            gap_us[a + i] = turns.gap_us[word[i]] + static_cast<int64_t>(place);
        }
    }
}

// New tokens of later turns where models have some of their own, or else -1.
static void new_tokens(const SgJob& job, const SgTurns& turns, const SgLanes& lanes, int64_t a, int n,
                       int32_t* given) {
    const Tables tables = {turns.new_thresholds, turns.new_values, turns.new_guide,
                           static_cast<int32_t>(turns.new_guide_bits)};
    Addresses at;
    alignas(64) int32_t cell[STRIP], table[STRIP], none[STRIP];
    draw_lanes(job, lanes, a, n, TURN, at, cell);
    for (int i = 0; i < whole_lanes(n); ++i) {
        none[i] = turns.new_table[turns.model[cell[i]]];
        table[i] = none[i] < 0 ? 0 : none[i];
    }
    look_up(tables, at.w2, table, n);
    for (int i = 0; i < n; ++i)
        given[i] = lanes.turn[a + i] == 0 || none[i] < 0 ? -1 : static_cast<int32_t>(at.w2[i]);
}

static void turn_fields(const SgJob& job, const SgTurns& turns, const SgFields& fields, const SgLanes& lanes,
                        int32_t* const* out) {
    FieldStrip s;
    alignas(64) int32_t given[STRIP];
    for (int64_t a = 0; a < lanes.count; a += STRIP) {
        s.n = strip_at(lanes.count, a);
        if (turns.any_new) new_tokens(job, turns, lanes, a, s.n, given);
        memcpy(s.cell, lanes.cell + a, s.n * sizeof(int32_t));
        memcpy(s.at.ordinal, lanes.ordinal + a, s.n * sizeof(uint32_t));
        for (int i = 0; i < s.n; ++i) {
            s.at.client[i] = static_cast<uint32_t>(job.client[s.cell[i]]);
            s.at.place[i] = place_of(static_cast<uint32_t>(job.window[s.cell[i]]), DATA);
            s.at.detail[i] = detail_of(static_cast<uint32_t>(lanes.turn[a + i]), 0);
            const int32_t mixing = job.dependence == COPULA ? job.mixing_of[s.cell[i]] : 0;
            s.mixing = i == 0 || s.mixing == mixing ? mixing : SEVERAL;
        }
        draw_values(job, fields, s, key_of(job), turns.any_new ? given : nullptr);
        for (int64_t k = 0; k < fields.count; ++k)
            memcpy(out[k] + a, s.word[fields.lane[k]], s.n * sizeof(int32_t));
    }
}

// The id of one session in the first layout with room for it, or -1.
static int64_t session_id(const SgSessions& sessions, uint64_t client, uint64_t window, uint64_t ordinal) {
    for (int64_t k = 0; k < sessions.count; ++k) {
        const int64_t* layout = sessions.layouts + 4 * k;
        if (client >> layout[0] | window >> layout[1] | ordinal >> layout[2]) continue;
        return static_cast<int64_t>(((client << layout[1] | window) << layout[2]) + ordinal) + layout[3];
    }
    return -1;
}

static bool session_ids(const SgJob& job, const SgSessions& sessions, const int64_t* first_ids, const SgLanes& lanes,
                        int64_t* ids) {
    const int64_t shift = sessions.ordinal_shift, bits = sessions.layouts[2];
    bool fits = true;
    for (int64_t a = 0; a < lanes.count; a += STRIP) {
        const int n = strip_at(lanes.count, a);
        const int32_t* cell = lanes.cell + a;
        const uint32_t* ordinal = lanes.ordinal + a;
        int64_t beyond = 0;
        for (int i = 0; i < n; ++i) {
            const int64_t first = first_ids[cell[i]], which = int64_t{ordinal[i]} << shift;
            beyond |= first < 0 ? 1 : which >> bits;
            ids[a + i] = (first + which) ^ sessions.flipped;
        }
        if (!beyond) continue;
        for (int i = 0; i < n; ++i) {
            const uint64_t window = static_cast<uint64_t>(sessions.window[cell[i]]);
            const int64_t id = session_id(sessions, job.client[cell[i]], window, uint64_t{ordinal[i]} << shift);
            fits &= id >= 0;
            ids[a + i] = id ^ sessions.flipped;
        }
    }
    return fits;
}

}  // namespace SG_NAMESPACE
