// Fields of requests: words, dependence, lookups, and records by bin of time.
#pragma once

#include "context.h"
#include "dependence.h"
#include "strip_normal.h"
#include "tables.h"

namespace SG_NAMESPACE {

constexpr int AHEAD = 16;        // runs between the one whose times are fetched into the cache and the one that is drawn
constexpr int LINEAR_STEPS = 1;  // bins that all lanes of a lookup pass before the rest is halved

struct FieldStrip {
    Addresses at;
    alignas(64) int64_t us[FILLED];
    alignas(64) int32_t cell[FILLED];
    alignas(64) uint32_t word[SG_MAX_FIELDS][STRIP];
    int32_t mixing;  // the matrix of all lanes, or SEVERAL
    int n;
};

constexpr int32_t SEVERAL = -1;

// Normals of the fields that ties name.
static void normals_of_fields(const FieldStrip& s, uint32_t used, double (*normals)[STRIP]) {
    for (int f = 0; used >> f; ++f)
        if (used >> f & 1) normals_of(s.word[f], s.n, normals[f]);
}

// Words after the copula that all lanes have.
static void mix_alike(const double* mixing, int fields, int stride, FieldStrip& s) {
    const Ties ties = ties_of(mixing, fields, stride);
    const int n = whole_lanes(s.n);
    alignas(64) double normals[SG_MAX_FIELDS][STRIP], z[STRIP];
    normals_of_fields(s, ties.used, normals);
    for (int f = 1; f < fields; ++f) {
        if (!(ties.mixed >> f & 1)) continue;
        const double* row = mixing + f * stride;
        for (int i = 0; i < n; ++i) z[i] = 0.0;
        for (int j = 0; j <= f; ++j) {
            const double share = row[j];
            if (share == 0.0) continue;
            for (int i = 0; i < n; ++i) z[i] = z[i] + normals[j][i] * share;
        }
        words_of(z, s.n, s.word[f]);
    }
}

// Words after the copulas of the clients, where a strip has several.
static void mix_each(const SgJob& job, int fields, FieldStrip& s) {
    const int stride = static_cast<int>(job.scalar_fields), n = whole_lanes(s.n);
    alignas(64) double normals[SG_MAX_FIELDS][STRIP], z[STRIP], ties[STRIP];
    alignas(64) int32_t of[STRIP];  // the first number of the lane's matrix
    alignas(64) uint32_t word[STRIP];
    uint32_t earlier[SG_MAX_FIELDS], used = 0;
    for (int f = 0; f < fields; ++f) {
        earlier[f] = static_cast<uint32_t>(job.ties >> SG_MAX_FIELDS * f) & ((1u << f) - 1);
        used |= earlier[f] ? earlier[f] | 1u << f : 0;
    }
    normals_of_fields(s, used, normals);
    for (int i = 0; i < n; ++i) of[i] = job.mixing_of[s.cell[i]] * stride * stride;
    for (int f = 1; f < fields; ++f) {
        if (!earlier[f]) continue;
        const double* share = job.mixing + f * stride;
        for (int i = 0; i < n; ++i) z[i] = ties[i] = 0.0;
        for (int j = 0; j < f; ++j) {
            if (!(earlier[f] >> j & 1)) continue;
            for (int i = 0; i < n; ++i) {
                const double own = share[of[i] + j];
                z[i] = z[i] + normals[j][i] * own;
                ties[i] = ties[i] + fabs(own);
            }
        }
        for (int i = 0; i < n; ++i) z[i] = z[i] + normals[f][i] * share[of[i] + f];
        words_of(z, s.n, word);
        for (int i = 0; i < n; ++i) s.word[f][i] = ties[i] != 0.0 ? word[i] : s.word[f][i];
    }
}

static void mix_words(const SgJob& job, int fields, FieldStrip& s) {
    const int stride = static_cast<int>(job.scalar_fields);
    if (s.mixing == SEVERAL) mix_each(job, fields, s);
    if (s.mixing > 0) mix_alike(job.mixing + s.mixing * stride * stride, fields, stride, s);
}

// Words of the fields 0 .. fields - 1.
static void field_words(const SgJob& job, int fields, FieldStrip& s, Key key) {
    const int n = whole_lanes(s.n);
    Addresses& at = s.at;
    draw_strip(at, s.n, key);
    const uint32_t* first[4] = {at.w0, at.w1, at.w2, at.w3};
    if (job.dependence == COMONOTONE) {
        for (int f = 0; f < fields; ++f) memcpy(s.word[f], at.w0, n * sizeof(uint32_t));
        return;
    }
    for (int f = 0; f < fields && f < 4; ++f) memcpy(s.word[f], first[f], n * sizeof(uint32_t));
    if (fields > 4) {
        for (int i = 0; i < n; ++i) at.detail[i] = detail_of(0, 1);
        draw_strip(at, s.n, key);
        for (int f = 4; f < fields; ++f) memcpy(s.word[f], first[f - 4], n * sizeof(uint32_t));
        for (int i = 0; i < n; ++i) at.detail[i] = 0;
    }
    if (job.dependence == COPULA) mix_words(job, fields, s);
}

// Bins of `n` words, whole lanes, among the bins low .. high of each: all lanes halve as often as the widest search needs.
static void halve_all(const Tables& tables, const uint32_t* word, int32_t* low, int32_t* high, int n) {
    int32_t widest = 0;
    for (int i = 0; i < n; ++i) widest = widest > high[i] - low[i] ? widest : high[i] - low[i];
    for (; widest; widest >>= 1) {
        for (int i = 0; i < n; ++i) {
            const int32_t middle = low[i] + ((high[i] - low[i]) >> 1);
            const bool right = tables.thresholds[middle] < word[i];
            low[i] = right ? middle + 1 : low[i];
            high[i] = right ? high[i] : middle;
        }
    }
}

// Values that the words of a strip select, in the place of the words. Most words fall in one of the first bins that the
// guide names: a few steps for all lanes. The lanes that are left come together and search in step, without a branch that
// would be mispredicted half of the time.
static void look_up(const Tables& tables, uint32_t* __restrict word, const int32_t* __restrict table, int n) {
    alignas(64) int32_t at[STRIP], bin[STRIP], lane[STRIP];
    alignas(64) uint32_t threshold[STRIP];
    const int whole = whole_lanes(n);
    for (int i = 0; i < whole; ++i) at[i] = guide_at(word[i], table[i], tables);
    for (int i = 0; i < whole; ++i) bin[i] = tables.guide[at[i]];
    for (int step = 0; step < LINEAR_STEPS; ++step)
        for (int i = 0; i < whole; ++i) bin[i] = next_bin(word[i], bin[i], tables);
    for (int i = 0; i < whole; ++i) threshold[i] = tables.thresholds[bin[i]];
    int left = 0;
    for (int i = 0; i < n; ++i) {
        lane[left] = i;
        left += threshold[i] < word[i];
    }
    if (left) {
        alignas(64) int32_t low[STRIP], high[STRIP];
        alignas(64) uint32_t searched[STRIP];
        const int searching = whole_lanes(left);
        for (int k = left; k < searching; ++k) lane[k] = lane[0];
        for (int k = 0; k < searching; ++k) searched[k] = word[lane[k]];
        for (int k = 0; k < searching; ++k) low[k] = bin[lane[k]] + 1;
        for (int k = 0; k < searching; ++k) high[k] = tables.guide[at[lane[k]] + 1];
        halve_all(tables, searched, low, high, searching);
        for (int k = 0; k < left; ++k) bin[lane[k]] = low[k];
    }
    for (int i = 0; i < whole; ++i) word[i] = static_cast<uint32_t>(tables.values[bin[i]]);
}

template <int FIELDS, bool ORDINAL>
static void scatter(Width<FIELDS, ORDINAL>, const FieldStrip& s, const SgFields& fields, const SgBins& bins, uint32_t* next) {
    constexpr int WORDS_EACH = Width<FIELDS, ORDINAL>::WORDS;
    const uint64_t low = (uint64_t{1} << bins.shift) - 1;
    const uint32_t* word[FIELDS + 1];
    for (int f = 0; f < FIELDS; ++f) word[f] = s.word[fields.lane[f]];
    uint32_t* of_bin = next - bins.first;
    for (int i = 0; i < s.n; ++i) {
        const uint64_t us = static_cast<uint64_t>(s.us[i]);
        uint32_t* __restrict record = bins.records + static_cast<int64_t>(of_bin[us >> bins.shift]++) * WORDS_EACH;
        record[0] = static_cast<uint32_t>(us & low);
        record[1] = static_cast<uint32_t>(s.cell[i]);
        for (int f = 0; f < FIELDS; ++f) record[2 + f] = word[f][i];
        if (ORDINAL) record[2 + FIELDS] = s.at.ordinal[i];
    }
}

// Values of the fields of a strip, in the place of their words. Where `given` is not null and not negative, it stands for
// the first field.
static void draw_values(const SgJob& job, const SgFields& fields, FieldStrip& s, Key key, const int32_t* given) {
    const Tables tables = {job.thresholds, job.values, job.guide, static_cast<int32_t>(job.guide_bits)};
    const int ratio = static_cast<int>(job.ratio_field), whole = whole_lanes(s.n);
    for (int i = s.n; i < whole; ++i) s.cell[i] = s.cell[0];
    field_words(job, fields.lane[fields.count - 1] + 1, s, key);
    for (int k = 0; k < fields.count; ++k) {
        const int f = fields.lane[k];
        alignas(64) int32_t table[STRIP];
        for (int i = 0; i < whole; ++i) table[i] = job.table[s.cell[i] * static_cast<int>(job.fields) + f];
        look_up(tables, s.word[f], table, s.n);
    }
    if (given)
        for (int i = 0; i < s.n; ++i) s.word[INPUT][i] = given[i] < 0 ? s.word[INPUT][i] : static_cast<uint32_t>(given[i]);
    if (job.context && !job.modalities) {  // with items, the input is not known yet
        for (int i = 0; i < whole; ++i) {
            const int32_t context = job.context[s.cell[i]];
            const int32_t tokens = cut_input(static_cast<int32_t>(s.word[INPUT][i]), context);
            const int32_t output = cut_output(static_cast<int32_t>(s.word[OUTPUT][i]), tokens, context);
            s.word[INPUT][i] = static_cast<uint32_t>(tokens);
            s.word[OUTPUT][i] = static_cast<uint32_t>(output);
        }
    }
    bool has_ratio = false;
    for (int k = 0; k < fields.count; ++k) has_ratio |= ratio > 0 && fields.lane[k] == ratio;
    if (has_ratio) {
        for (int i = 0; i < whole; ++i) {
            const int32_t output = static_cast<int32_t>(s.word[OUTPUT][i]), share = static_cast<int32_t>(s.word[ratio][i]);
            s.word[ratio][i] = static_cast<uint32_t>(reason_tokens(output, share));
        }
    }
}

// work(strip) for all strips of runs of requests; it leaves the strip's lanes to be filled again.
template <class Work>
static void in_strips(const SgJob& job, const SgRun* runs, int64_t count, const Work& work) {
    FieldStrip s;
    s.n = 0;
    memset(s.at.detail, 0, sizeof s.at.detail);
    for (int64_t k = 0; k < count; ++k) {
        const SgRun& run = runs[k];
        if (k + AHEAD < count) {
            SG_PREFETCH(runs[k + AHEAD].times);
            SG_PREFETCH(runs[k + AHEAD].times + LANES - 1);
        }
        const uint32_t client = static_cast<uint32_t>(job.client[run.cell]);
        const uint32_t place = place_of(static_cast<uint32_t>(job.window[run.cell]), DATA);
        const int32_t mixing = job.dependence == COPULA ? job.mixing_of[run.cell] : 0;
        for (uint32_t done = 0; done < run.count;) {
            const int a = s.n, room = STRIP - a;
            const uint32_t rest = run.count - done;
            const int n = rest < static_cast<uint32_t>(room) ? static_cast<int>(rest) : room;
            const uint32_t* times = run.times + done;
            const uint32_t first = run.first + done;
            const int64_t origin = run.origin_us;
            const int32_t cell = run.cell;
            fill(s.us + a, n, [&](int i) { return int64_t{times[i]} + origin; });
            fill(s.at.ordinal + a, n, [&](int i) { return first + static_cast<uint32_t>(i); });
            fill(s.at.client + a, n, [&](int) { return client; });
            fill(s.at.place + a, n, [&](int) { return place; });
            fill(s.cell + a, n, [&](int) { return cell; });
            s.mixing = a == 0 || s.mixing == mixing ? mixing : SEVERAL;
            s.n += n;
            done += static_cast<uint32_t>(n);
            if (s.n < STRIP) continue;
            work(s);
            s.n = 0;
        }
    }
    if (s.n) work(s);
}

static void records(const SgJob& job, const SgFields& fields, const SgRun* runs, int64_t count, const SgBins& bins,
                    uint32_t* next) {
    const Key key = key_of(job);
    in_strips(job, runs, count, [&](FieldStrip& s) {
        draw_values(job, fields, s, key, nullptr);
        with_width(fields, [&](auto width) { scatter(width, s, fields, bins, next); });
    });
}

static void add(const FieldStrip& s, const SgFields& fields, const SgLoads& loads, double per_us) {
    alignas(64) int64_t bin[STRIP];
    for (int i = 0; i < s.n; ++i) {
        const int64_t us = s.us[i] + loads.offset_us;
        int64_t at = static_cast<int64_t>(static_cast<double>(us) * per_us);  // one off at most
        at -= at * loads.width_us > us;
        at += (at + 1) * loads.width_us <= us;
        bin[i] = at < loads.bins ? at : loads.bins;
    }
    if (loads.requests)
        for (int i = 0; i < s.n; ++i) ++loads.requests[bin[i]];
    for (int k = 0; k < fields.count; ++k) {
        int64_t* sums = loads.field[fields.lane[k]];
        if (!sums) continue;
        const uint32_t* value = s.word[fields.lane[k]];
        for (int i = 0; i < s.n; ++i) sums[bin[i]] += static_cast<int32_t>(value[i]);
    }
}

static void loads(const SgJob& job, const SgFields& fields, const SgRun* runs, int64_t count, const SgLoads& loads) {
    const Key key = key_of(job);
    const double per_us = 1.0 / static_cast<double>(loads.width_us);
    in_strips(job, runs, count, [&](FieldStrip& s) {
        if (fields.count) draw_values(job, fields, s, key, nullptr);
        add(s, fields, loads, per_us);
    });
}

}  // namespace SG_NAMESPACE
