// The loops of the CPU driver over strips of lanes. Compiled once for every vector extension, with SG_NAMESPACE naming
// it; nothing here may be shared between builds, so no standard library.
#include "job.h"

#include "context.h"
#include "dependence.h"
#include "position.h"
#include "shim.h"
#include "tables.h"

namespace SG_NAMESPACE {

constexpr int STRIP = 256;  // lanes that are worked on together
constexpr int LANES = 16;   // strips are filled up to a multiple of this
constexpr int MAX_ATTEMPTS = 256;
constexpr int LINEAR_STEPS = 1;  // bins that all lanes of a lookup pass before the rest is halved

static inline int whole_lanes(int n) { return (n + LANES - 1) & -LANES; }

static inline Key key_of(const SgJob& job) {
    return {static_cast<uint32_t>(job.key0), static_cast<uint32_t>(job.key1)};
}

// The addresses of a strip and its words.
struct Addresses {
    alignas(64) uint32_t ordinal[STRIP], client[STRIP], place[STRIP], detail[STRIP];
    alignas(64) uint32_t w0[STRIP], w1[STRIP], w2[STRIP], w3[STRIP];
};

static void draw_strip(Addresses& at, int n, Key key) {
    const int whole = whole_lanes(n);
    for (int i = 0; i < whole; ++i) {
        const Words words = philox4x32({at.ordinal[i], at.client[i], at.place[i], at.detail[i]}, key);
        at.w0[i] = words.w0;
        at.w1[i] = words.w1;
        at.w2[i] = words.w2;
        at.w3[i] = words.w3;
    }
}

// Gaps ------------------------------------------------------------------------------------------------------------

// Lanes that wait for a gap. Rejected lanes stay for the next attempt, and new ones fill up the strip behind them.
struct GapStrip {
    Addresses at;
    alignas(64) double d[STRIP], c[STRIP], log_d[STRIP], boost[STRIP];  // of Weibull: boost is 1 / shape
    alignas(64) double log_gap[STRIP], accepted[STRIP];
    double* to[STRIP];
    int n;
};

// Standard normals from words: the centre everywhere, then the tails of those few lanes that need them.
static void normals_of(const uint32_t* word, int n, double* z) {
    alignas(64) double q[STRIP], tail[STRIP];
    int lane[STRIP], tails = 0;
    const int whole = whole_lanes(n);
    for (int i = 0; i < whole; ++i) {
        q[i] = uniform32(word[i]) - 0.5;
        z[i] = quantile_centre(q[i]);
    }
    for (int i = 0; i < whole; ++i) {
        lane[tails] = i;
        tails += fabs(q[i]) > QUANTILE_SPLIT;
    }
    for (int i = 0; i < tails; ++i) tail[i] = q[lane[i]];
    const int whole_tails = whole_lanes(tails);
    for (int i = tails; i < whole_tails; ++i) tail[i] = 0.0;
    for (int i = 0; i < whole_tails; ++i) tail[i] = quantile_tail(tail[i] + 0.5, tail[i]);
    for (int i = 0; i < tails; ++i) z[lane[i]] = tail[i];
}

static void attempt_gamma(GapStrip& s, Key key) {
    draw_strip(s.at, s.n, key);
    alignas(64) double z[STRIP];
    normals_of(s.at.w0, s.n, z);
    const int whole = whole_lanes(s.n);
    for (int i = 0; i < whole; ++i) {
        const Words words = {s.at.w0[i], s.at.w1[i], s.at.w2[i], s.at.w3[i]};
        const LogGamma gap = try_log_gamma_at(z[i], words, {s.d[i], s.c[i], s.log_d[i], s.boost[i]});
        s.log_gap[i] = gap.log_gap;
        s.accepted[i] = gap.accepted ? 1.0 : 0.0;
    }
    int left = 0;
    for (int i = 0; i < s.n; ++i) {
        *s.to[i] = s.log_gap[i];
        if (s.accepted[i] == 0.0) {
            s.at.ordinal[left] = s.at.ordinal[i];
            s.at.client[left] = s.at.client[i];
            s.at.place[left] = s.at.place[i];
            s.at.detail[left] = s.at.detail[i] + 1;
            s.d[left] = s.d[i];
            s.c[left] = s.c[i];
            s.log_d[left] = s.log_d[i];
            s.boost[left] = s.boost[i];
            s.to[left] = s.to[i];
            ++left;
        }
    }
    s.n = left;
}

static void draw_weibull(GapStrip& s, Key key) {
    draw_strip(s.at, s.n, key);
    const int whole = whole_lanes(s.n);
    for (int i = 0; i < whole; ++i) {
        const Words words = {s.at.w0[i], s.at.w1[i], s.at.w2[i], s.at.w3[i]};
        s.log_gap[i] = log_weibull(words, s.boost[i]);
    }
    for (int i = 0; i < s.n; ++i) *s.to[i] = s.log_gap[i];
    s.n = 0;
}

static void gaps(const SgJob& job, SgSegment* segments, int64_t count) {
    const Key key = key_of(job);
    GapStrip gamma, weibull;
    gamma.n = weibull.n = 0;
    for (int64_t k = 0; k < count; ++k) {
        const SgSegment& segment = segments[k];
        const int32_t cell = segment.cell;
        const bool is_gamma = job.is_gamma[cell];
        GapStrip& s = is_gamma ? gamma : weibull;
        const uint32_t client = static_cast<uint32_t>(job.client[cell]);
        const uint32_t place = place_of(static_cast<uint32_t>(job.window[cell]), GAP);
        const double d = job.d[cell], c = job.c[cell], log_d = job.log_d[cell];
        const double boost = is_gamma ? job.boost[cell] : job.inverse_shape[cell];
        double* data = reinterpret_cast<double*>(segment.data);
        uint32_t done = 0;
        while (done < segment.count) {
            const int a = s.n, room = STRIP - a, rest = static_cast<int>(segment.count - done);
            const int b = a + (rest < room ? rest : room);
            for (int i = a; i < b; ++i) s.at.ordinal[i] = segment.first + done + (i - a);
            for (int i = a; i < b; ++i) s.at.client[i] = client;
            for (int i = a; i < b; ++i) s.at.place[i] = place;
            for (int i = a; i < b; ++i) s.at.detail[i] = 0;
            for (int i = a; i < b; ++i) s.boost[i] = boost;
            for (int i = a; i < b; ++i) s.to[i] = data + done + (i - a);
            if (is_gamma) {
                for (int i = a; i < b; ++i) s.d[i] = d;
                for (int i = a; i < b; ++i) s.c[i] = c;
                for (int i = a; i < b; ++i) s.log_d[i] = log_d;
            }
            s.n = b;
            done += static_cast<uint32_t>(b - a);
            if (s.n == STRIP) is_gamma ? attempt_gamma(s, key) : draw_weibull(s, key);
        }
    }
    draw_weibull(weibull, key);
    for (int attempt = 0; gamma.n && attempt < 2 * MAX_ATTEMPTS; ++attempt) attempt_gamma(gamma, key);

    for (int64_t k = 0; k < count; ++k) {
        const double* gap = reinterpret_cast<const double*>(segments[k].data);
        const uint32_t n = segments[k].count;
        double best[8];
        for (int j = 0; j < 8; ++j) best[j] = gap[0];
        uint32_t i = 0;
        for (; i + 8 <= n; i += 8)
            for (int j = 0; j < 8; ++j) best[j] = best[j] > gap[i + j] ? best[j] : gap[i + j];
        for (; i < n; ++i) best[0] = best[0] > gap[i] ? best[0] : gap[i];
        double peak = best[0];
        for (int j = 1; j < 8; ++j) peak = peak > best[j] ? peak : best[j];
        segments[k].peak = peak;
    }
}

// Ticks and times -------------------------------------------------------------------------------------------------

static void ticks(const SgJob& job, SgSegment* segments, int64_t count) {
    for (int64_t k = 0; k < count; ++k) {
        SgSegment& segment = segments[k];
        const double unit = job.log_unit[segment.cell], per_unit = job.ticks_per_unit[segment.cell];
        const int n = static_cast<int>(segment.count);
        const bool renewal = job.rule[segment.cell] == SG_RENEWAL;
        int64_t sum = 0;
        for (int a = 0; a < n; a += LANES) {
            alignas(64) double gap[LANES];
            alignas(64) int64_t tick[LANES];
            memcpy(gap, segment.data + a, sizeof gap);
            for (int j = 0; j < LANES; ++j) tick[j] = gap_ticks(gap[j], unit, per_unit);
            const int b = n - a < LANES ? n - a : LANES;
            if (renewal) {
                if (a == 0 && segment.first == 0) tick[0] = job.first_ticks[segment.cell];
                for (int j = 0; j < b; ++j) {
                    // once at the window's end it stays there: a tick more would not fit
                    const int64_t left = WINDOW_TICKS - sum;
                    sum += tick[j] < left ? tick[j] : left;
                    segment.data[a + j] = sum;
                }
            } else {
                for (int j = 0; j < b; ++j) segment.data[a + j] = sum += tick[j];
            }
        }
        segment.total = sum;
    }
}

static void to_operational(const SgJob& job, int32_t cell, const int64_t* sum, uint64_t* x, int64_t* inside) {
    switch (job.rule[cell]) {
        case SG_EXACT: {
            const int64_t all = job.ticks_in_all[cell], rotation = job.rotation[cell];
            const double occupancy = job.occupancy[cell];
            for (int j = 0; j < LANES; ++j) x[j] = static_cast<uint64_t>(on_circle(sum[j], all, occupancy, rotation));
            for (int j = 0; j < LANES; ++j) inside[j] = 1;
            break;
        }
        case SG_RENEWAL:
            for (int j = 0; j < LANES; ++j) x[j] = static_cast<uint64_t>(sum[j]) >> (RENEWAL_BITS - 32) & 0xFFFFFFFF;
            for (int j = 0; j < LANES; ++j) inside[j] = sum[j] < WINDOW_TICKS;
            break;
        default: {
            const int64_t all = job.ticks_in_all[cell];
            for (int j = 0; j < LANES; ++j) {
                const FromStart start = from_start(sum[j], all);
                x[j] = static_cast<uint64_t>(start.x);
                inside[j] = start.inside;
            }
        }
    }
}

static void to_clock(const SgJob& job, int32_t cell, const uint64_t* x, int64_t* us) {
    const int64_t table = job.clock_table[cell];
    if (table == 0) {
        const uint64_t window_us = static_cast<uint64_t>(job.window_us);
        for (int j = 0; j < LANES; ++j) us[j] = static_cast<int64_t>(clock_us(x[j], 0, 0, window_us));
        return;
    }
    const Tables tables = {job.clock_thresholds, nullptr, job.clock_guide, static_cast<int32_t>(job.clock_guide_bits)};
    for (int j = 0; j < LANES; ++j) {
        const int64_t s = find_bin(static_cast<uint32_t>(x[j]), table, tables);
        us[j] = static_cast<int64_t>(clock_us(x[j], job.clock_first[s], job.clock_start_us[s], job.clock_slope[s]));
    }
}

// Requests before the first one whose time is below the time before it: a run of requests passes the window's end once.
static uint32_t find_wrap(const uint32_t* times, uint32_t n) {
    for (uint32_t a = 1; a < n; a += 64) {
        const uint32_t b = n - a < 64 ? n : a + 64;
        uint32_t falls = 0;
        for (uint32_t i = a; i < b; ++i) falls |= times[i] < times[i - 1];
        if (!falls) continue;
        for (uint32_t i = a;; ++i)
            if (times[i] < times[i - 1]) return i;
    }
    return n;
}

static void times(const SgJob& job, SgSegment* segments, int64_t count, int shift, uint32_t* histogram) {
    for (int64_t k = 0; k < count; ++k) {
        SgSegment& segment = segments[k];
        const int64_t origin = job.origin_us[segment.cell], before = segment.before;
        const int n = static_cast<int>(segment.count);
        int64_t kept = 0;
        for (int a = 0; a < n; a += LANES) {
            alignas(64) int64_t sum[LANES], us[LANES], inside[LANES];
            alignas(64) uint64_t x[LANES];
            const int b = n - a < LANES ? n - a : LANES;
            memcpy(sum, segment.data + a, sizeof sum);
            // beyond the segment's end anything may be read: its last sum stands in
            for (int j = b; j < LANES; ++j) sum[j] = sum[b - 1];
            for (int j = 0; j < LANES; ++j) sum[j] += before;
            to_operational(job, segment.cell, sum, x, inside);
            to_clock(job, segment.cell, x, us);
            for (int j = 0; j < b; ++j) segment.times[a + j] = static_cast<uint32_t>(us[j]);
            for (int j = 0; j < b; ++j) kept += inside[j];
            for (int j = 0; j < LANES; ++j) us[j] += origin;
            for (int j = 0; j < b; ++j)
                if ((inside[j] != 0) & (us[j] >= 0) & (us[j] < job.span_us)) ++histogram[us[j] >> shift];
        }
        segment.count = static_cast<uint32_t>(kept);
        segment.wrap = find_wrap(segment.times, segment.count);
    }
}

// Fields ----------------------------------------------------------------------------------------------------------

struct FieldStrip {
    Addresses at;
    alignas(64) int64_t us[STRIP];
    alignas(64) int32_t cell[STRIP];
    alignas(64) uint32_t word[SG_MAX_FIELDS][STRIP];
    int n;
};

// Words after the copulas of the clients; a strip of clients without one pays for the look at its cells.
static void mix_words(const SgJob& job, int fields, FieldStrip& s, int n) {
    const int scalar = static_cast<int>(job.scalar_fields);
    alignas(64) int32_t of[STRIP];  // the first number of the lane's matrix
    int32_t any = 0;
    for (int i = 0; i < n; ++i) any |= of[i] = job.mixing_of[s.cell[i]] * scalar * scalar;
    if (!any) return;
    alignas(64) double normals[STRIP][SG_MAX_FIELDS], z[STRIP];
    for (int f = 0; f < fields; ++f) {
        normals_of(s.word[f], s.n, z);
        for (int i = 0; i < n; ++i) normals[i][f] = z[i];
    }
    for (int f = 1; f < fields; ++f) {
        for (int i = 0; i < n; ++i) {
            const double* row = job.mixing + of[i] + f * scalar;
            const uint32_t mixed = mix_word(normals[i], row, f);
            s.word[f][i] = is_mixed(row, f) ? mixed : s.word[f][i];
        }
    }
}

// Words of the fields 0 .. fields - 1.
static void field_words(const SgJob& job, int fields, FieldStrip& s, Key key) {
    const int n = whole_lanes(s.n);
    Addresses& at = s.at;
    draw_strip(at, s.n, key);
    const uint32_t* first[4] = {at.w0, at.w1, at.w2, at.w3};
    if (job.dependence == SG_COMONOTONE) {
        for (int f = 0; f < fields; ++f) memcpy(s.word[f], at.w0, n * sizeof(uint32_t));
        return;
    }
    for (int f = 0; f < fields && f < 4; ++f) memcpy(s.word[f], first[f], n * sizeof(uint32_t));
    if (fields > 4) {
        for (int i = 0; i < n; ++i) at.detail[i] = detail_of(0, 0, 1);
        draw_strip(at, s.n, key);
        for (int f = 4; f < fields; ++f) memcpy(s.word[f], first[f - 4], n * sizeof(uint32_t));
        for (int i = 0; i < n; ++i) at.detail[i] = 0;
    }
    if (job.dependence == SG_COPULA) mix_words(job, fields, s, n);
}

// Values that the words of a strip select, in the place of the words. Most words fall in one of the first bins that the
// guide names: a few steps for all lanes, and then halving for the lanes that are left.
static void look_up(const Tables& tables, uint32_t* __restrict word, const int32_t* __restrict table, int n) {
    alignas(64) int32_t at[STRIP], bin[STRIP];
    alignas(64) uint32_t threshold[STRIP];
    int32_t lane[STRIP];
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
    for (int k = 0; k < left; ++k) {
        const int i = lane[k];
        bin[i] = halve_bins(word[i], bin[i] + 1, tables.guide[at[i] + 1], tables);
    }
    for (int i = 0; i < whole; ++i) word[i] = static_cast<uint32_t>(tables.values[bin[i]]);
}

template <int FIELDS, bool ORDINAL>
static void scatter(const FieldStrip& s, const SgFields& fields, const SgBins& bins, uint32_t* next) {
    constexpr int WORDS_EACH = 2 + FIELDS + (ORDINAL ? 1 : 0);
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

static void write_records(const SgJob& job, const SgFields& fields, FieldStrip& s, Key key, const SgBins& bins,
                          uint32_t* next) {
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
    if (job.context && !job.modalities) {  // with items, the input is not known yet
        for (int i = 0; i < whole; ++i) {
            const int32_t context = job.context[s.cell[i]];
            const int32_t tokens = cut_input(static_cast<int32_t>(s.word[0][i]), context);
            s.word[0][i] = static_cast<uint32_t>(tokens);
            s.word[1][i] = static_cast<uint32_t>(cut_output(static_cast<int32_t>(s.word[1][i]), tokens, context));
        }
    }
    if (ratio > 0) {  // share k / 501 of the field before it, rounded half up
        for (int i = 0; i < whole; ++i) {
            const uint64_t twice = 2 * static_cast<uint64_t>(s.word[ratio - 1][i]) * s.word[ratio][i];
            s.word[ratio][i] = static_cast<uint32_t>((twice + 501) / 1002);
        }
    }
    if (fields.ordinal) {
        switch (fields.count) {
            case 2: scatter<2, true>(s, fields, bins, next); break;
            case 3: scatter<3, true>(s, fields, bins, next); break;
            case 4: scatter<4, true>(s, fields, bins, next); break;
            default: scatter<5, true>(s, fields, bins, next);
        }
    } else if (fields.count == 2) {
        scatter<2, false>(s, fields, bins, next);
    } else {
        scatter<3, false>(s, fields, bins, next);
    }
    s.n = 0;
}

static void records(const SgJob& job, const SgFields& fields, const SgRun* runs, int64_t count, const SgBins& bins,
                    uint32_t* next) {
    const Key key = key_of(job);
    FieldStrip s;
    s.n = 0;
    memset(s.at.detail, 0, sizeof s.at.detail);
    for (int64_t k = 0; k < count; ++k) {
        const SgRun& run = runs[k];
        const uint32_t client = static_cast<uint32_t>(job.client[run.cell]);
        const uint32_t place = place_of(static_cast<uint32_t>(job.window[run.cell]), DATA);
        for (uint32_t done = 0; done < run.count;) {
            const int a = s.n, room = STRIP - a;
            const uint32_t rest = run.count - done;
            const int n = rest < static_cast<uint32_t>(room) ? static_cast<int>(rest) : room;
            const uint32_t* times = run.times + done;
            for (int i = 0; i < n; ++i) s.us[a + i] = int64_t{times[i]} + run.origin_us;
            for (int i = 0; i < n; ++i) s.at.ordinal[a + i] = run.first + done + i;
            for (int i = 0; i < n; ++i) s.at.client[a + i] = client;
            for (int i = 0; i < n; ++i) s.at.place[a + i] = place;
            for (int i = 0; i < n; ++i) s.cell[a + i] = run.cell;
            s.n += n;
            done += static_cast<uint32_t>(n);
            if (s.n == STRIP) write_records(job, fields, s, key, bins, next);
        }
    }
    if (s.n) write_records(job, fields, s, key, bins, next);
}

// Sort ------------------------------------------------------------------------------------------------------------

constexpr int MAX_DIGIT_BITS = 11;

// Sorts words by their upper half, keeping the order of equals; the sorted words are in the returned one of the two.
static uint64_t* sort_words(uint64_t* words, uint64_t* spare, int64_t n, int key_bits) {
    if (n < 48) {
        for (int64_t i = 1; i < n; ++i) {
            const uint64_t word = words[i];
            int64_t j = i;
            for (; j > 0 && words[j - 1] > word; --j) words[j] = words[j - 1];
            words[j] = word;
        }
        return words;
    }
    const int passes = (key_bits + MAX_DIGIT_BITS - 1) / MAX_DIGIT_BITS;
    if (passes == 0) return words;
    const int bits = (key_bits + passes - 1) / passes;
    const uint32_t mask = (1u << bits) - 1;
    uint32_t start[3][1 << MAX_DIGIT_BITS];
    for (int p = 0; p < passes; ++p) memset(start[p], 0, sizeof(uint32_t) << bits);
    for (int64_t i = 0; i < n; ++i) {
        const uint64_t key = words[i] >> 32;
        for (int p = 0; p < passes; ++p) ++start[p][key >> (p * bits) & mask];
    }
    for (int p = 0; p < passes; ++p) {
        uint32_t* next = start[p];
        uint32_t sum = 0;
        for (uint32_t digit = 0; digit <= mask; ++digit) {
            const uint32_t count = next[digit];
            next[digit] = sum;
            sum += count;
        }
        const int shift = 32 + p * bits;
        for (int64_t i = 0; i < n; ++i) {
            const uint64_t word = words[i];
            spare[next[word >> shift & mask]++] = word;
        }
        uint64_t* swap = words;
        words = spare;
        spare = swap;
    }
    return words;
}

template <int FIELDS, bool ORDINAL>
static void gather(const SgJob& job, const uint32_t* records, const uint64_t* sorted, int64_t count,
                   const SgRows& rows) {
    constexpr int WORDS_EACH = 2 + FIELDS + (ORDINAL ? 1 : 0);
    const int64_t base = rows.base_us;
    int64_t* arrival_us = rows.arrival_us;
    int32_t *client = rows.client, *field[FIELDS];
    for (int f = 0; f < FIELDS; ++f) field[f] = rows.field[f];
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t* record = records + (sorted[i] & 0xFFFFFFFF) * WORDS_EACH;
        arrival_us[i] = base + record[0];
        client[i] = job.client_column[record[1]];
        for (int f = 0; f < FIELDS; ++f) field[f][i] = static_cast<int32_t>(record[2 + f]);
        if (ORDINAL) {
            rows.cell[i] = static_cast<int32_t>(record[1]);
            rows.ordinal[i] = record[2 + FIELDS];
        }
    }
}

static void columns(const SgJob& job, const SgFields& fields, const SgBins& bins, int64_t begin, int64_t count,
                    const SgRows& rows, uint64_t* scratch) {
    const int64_t words = fields.words;
    const uint32_t* records = bins.records + begin * words;
    for (int64_t i = 0; i < count; ++i) scratch[i] = static_cast<uint64_t>(records[i * words]) << 32 | i;
    const uint64_t* sorted = sort_words(scratch, scratch + count, count, bins.shift);
    if (fields.ordinal) {
        switch (fields.count) {
            case 2: gather<2, true>(job, records, sorted, count, rows); break;
            case 3: gather<3, true>(job, records, sorted, count, rows); break;
            case 4: gather<4, true>(job, records, sorted, count, rows); break;
            default: gather<5, true>(job, records, sorted, count, rows);
        }
    } else if (fields.count == 2) {
        gather<2, false>(job, records, sorted, count, rows);
    } else {
        gather<3, false>(job, records, sorted, count, rows);
    }
}

// Items -----------------------------------------------------------------------------------------------------------

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
        const int64_t first = offsets[request] + 4 * static_cast<int64_t>(s.at.detail[i] >> 18);
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
            s.at.detail[s.n] = detail_of(0, 0, static_cast<uint32_t>(item));
            s.request[s.n] = request;
            if (++s.n == STRIP) draw_items(job, s, lanes, job.item_field + modality, cell, offsets, values, inputs);
        }
    }
    if (s.n) draw_items(job, s, lanes, job.item_field + modality, cell, offsets, values, inputs);
}

extern const SgStrips strips = {gaps, ticks, times, records, columns, items, function};

}  // namespace SG_NAMESPACE
