// Second half of the CPU driver: from times to sorted columns.
//
// The time axis is cut into chunks, runs of bins with about as many requests as stay in cache together. A thread makes
// a chunk from end to end: it finds the chunk's requests in every piece, draws their fields client by client,
// puts their records into bins, sorts each bin, and writes the rows where they belong. Rows are known beforehand.
#pragma once

#include "context.h"
#include "draw.h"

constexpr int64_t CHUNK = 4 * BIN;
constexpr int64_t PIECES_PER_REQUEST = 2;  // a chunk looks at all pieces of its windows: not at more than this, each

// Items of one modality in the requests of one bin, until it is known where they belong.
struct Items {
    Held values;
    int64_t count = 0;
};

// Columns of what was drawn, and items that wait for their place.
class Sorting {
  public:
    Sorting(const SgStrips& strips, const SgJob& job, Drawn drawn)
        : strips_(strips), job_(job), drawn_(std::move(drawn)), threads_(std::max<int64_t>(job.threads, 1)) {
        for (int64_t f = 0; f < job.scalar_fields; ++f)
            if (!is_silent(f)) fields_.lane[fields_.count++] = static_cast<int32_t>(f);
        fields_.ordinal = job.modalities > 0 || job.ordinals;
        fields_.words = 2 + fields_.count + (fields_.ordinal ? 1 : 0);
        for (int64_t m = 0; m < job.modalities; ++m) items_[m].resize(is_silent(job.count_field + m) ? 0 : drawn_.bins());
    }

    int64_t count() const { return drawn_.count(); }

    // Whether any request may have items of a modality.
    bool has_items(int64_t modality) const { return !items_[modality].empty(); }

    // Writes all columns but the values of items; offsets of items begin anew in every bin.
    void write(const SgOut& out) {
        const std::vector<Range> chunks = cut();
        std::vector<Worker> workers(threads_);
        for_each(static_cast<int64_t>(chunks.size()), threads_, job_.stop,
                 [&](int64_t c, int64_t t) { write_chunk(chunks[c], out, workers[t]); });
        drawn_.memory.clear();
        for (int64_t m = 0; m < job_.modalities; ++m)
            for (const Items& items : items_[m]) totals_[m] += items.count;
    }

    int64_t total(int64_t modality) const { return totals_[modality]; }

    // Puts items where they belong.
    void write_items(int64_t m, int64_t* offsets, int32_t* values) const {
        std::vector<int64_t> before(items_[m].size() + 1, 0);
        for (size_t b = 0; b < items_[m].size(); ++b) before[b + 1] = before[b] + items_[m][b].count;
        offsets[0] = 0;
        for_each(static_cast<int64_t>(items_[m].size()), threads_, nullptr, [&](int64_t b, int64_t) {
            const Items& items = items_[m][b];
            if (items.count) memcpy(values + before[b], items.values->as<int32_t>(), items.count * sizeof(int32_t));
            for (int64_t row = drawn_.bin_begins[b]; row < drawn_.bin_begins[b + 1]; ++row) offsets[row + 1] += before[b];
        });
    }

  private:
    struct Worker {
        std::vector<SgRun> runs;
        std::vector<uint32_t> reached;  // requests of each piece that lie before the chunk
        std::vector<uint32_t> next;
        Scratch<uint32_t> records;
        Scratch<uint64_t> words;
        Scratch<int32_t> cell, counts;
        Scratch<uint32_t> ordinal;
        Scratch<int64_t> offsets;
    };

    // A number of items that is 0 in every cell.
    bool is_silent(int64_t field) const {
        if (!job_.modalities || field < job_.count_field) return false;
        const int64_t entries = (int64_t{1} << job_.guide_bits) + 1;
        for (int64_t cell = 0; cell < job_.cells; ++cell) {
            const int32_t* guide = job_.guide + job_.table[cell * job_.fields + field] * entries;
            if (job_.values[guide[entries - 1]] != 0) return false;  // the last value is the largest
        }
        return true;
    }

    std::vector<Range> cut() const {
        const int64_t pieces = static_cast<int64_t>(drawn_.pieces.size());
        const int64_t most = std::max(8 * threads_, PIECES_PER_REQUEST * count() / std::max<int64_t>(pieces, 1));
        return ranges_of(0, drawn_.bins(), std::max(CHUNK, count() / most),
                         [&](int64_t b) { return drawn_.bin_begins[b + 1] - drawn_.bin_begins[b]; });
    }

    // The first of rising times that is not below `value`, looked for in steps that double: it is seldom far.
    static const uint32_t* reach(const uint32_t* first, const uint32_t* end, int64_t value) {
        if (first == end || *first >= value) return first;
        int64_t step = 1;
        for (; step < end - first && first[step] < value; step *= 2) first += step;
        return std::lower_bound(first + 1, std::min(first + step, end), value);
    }

    // Chunks of a worker follow one another: it goes on where the last one ended in every piece.
    void find_runs(int64_t from_us, int64_t to_us, Worker& worker) const {
        const std::vector<Piece>& pieces = drawn_.pieces;
        worker.runs.clear();
        worker.reached.resize(pieces.size());
        // pieces follow one another by window
        const auto begin = std::partition_point(pieces.begin(), pieces.end(), [&](const Piece& piece) {
            return piece.origin_us + job_.window_us <= from_us;
        });
        for (size_t p = begin - pieces.begin(); p < pieces.size() && pieces[p].origin_us < to_us; ++p) {
            const Piece& piece = pieces[p];
            const uint32_t *first = piece.times + worker.reached[p], *end = piece.times + piece.count;
            const uint32_t* a = reach(first, end, from_us - piece.origin_us);
            const uint32_t* b = reach(a, end, to_us - piece.origin_us);
            const uint32_t before = static_cast<uint32_t>(a - piece.times), count = static_cast<uint32_t>(b - a);
            worker.reached[p] = before + count;
            if (count) worker.runs.push_back({a, piece.origin_us, piece.first + before, count, piece.cell});
        }
    }

    void write_chunk(Range chunk, const SgOut& out, Worker& worker) {
        const std::vector<int64_t>& begins = drawn_.bin_begins;
        const int64_t row = begins[chunk.begin], count = begins[chunk.end] - row;
        if (!count) return;
        find_runs(chunk.begin << drawn_.shift, std::min(chunk.end << drawn_.shift, job_.span_us), worker);
        worker.next.resize(chunk.end - chunk.begin);
        for (int64_t b = chunk.begin; b < chunk.end; ++b)
            worker.next[b - chunk.begin] = static_cast<uint32_t>(begins[b] - row);
        const SgBins bins = {worker.records.of(count * fields_.words), chunk.begin, drawn_.shift};
        strips_.records(job_, fields_, worker.runs.data(), static_cast<int64_t>(worker.runs.size()), bins,
                        worker.next.data());
        for (int64_t b = chunk.begin; b < chunk.end; ++b) write_bin(bins, b, row, out, worker);
    }

    void write_bin(const SgBins& bins, int64_t bin, int64_t row_of_chunk, const SgOut& out, Worker& worker) {
        const int64_t row = drawn_.bin_begins[bin], count = drawn_.bin_begins[bin + 1] - row;
        if (!count) return;
        SgRows rows = {};
        rows.base_us = (bin << bins.shift) + out.offset_us;
        rows.arrival_us = out.arrival_us + row;
        rows.client = out.client + row;
        int32_t* counts = job_.modalities ? worker.counts.of(job_.modalities * count) : nullptr;
        for (int64_t k = 0; k < fields_.count; ++k) {
            const int64_t f = fields_.lane[k], m = f - job_.count_field;
            rows.field[k] = job_.modalities && m >= 0 ? counts + m * count : out.field[f] + row;
        }
        if (fields_.ordinal) {
            rows.cell = worker.cell.of(count);
            rows.ordinal = job_.ordinals ? out.ordinal + row : worker.ordinal.of(count);
        }
        strips_.columns(job_, fields_, bins, row - row_of_chunk, count, rows, worker.words.of(2 * count));
        if (job_.last_single) strips_.several(job_, count, rows.cell, rows.ordinal, out.several + row);
        if (!job_.modalities) return;
        int32_t* inputs = out.inputs + row;
        memcpy(inputs, out.field[0] + row, count * sizeof(int32_t));
        for (int64_t m = 0; m < job_.modalities; ++m) {
            if (!has_items(m)) continue;
            int64_t* offsets = worker.offsets.of(count + 1);
            offsets[0] = 0;
            for (int64_t i = 0; i < count; ++i) offsets[i + 1] = offsets[i] + counts[m * count + i];
            memcpy(out.offsets[m] + row + 1, offsets + 1, count * sizeof(int64_t));
            Items& items = items_[m][bin];
            items.count = offsets[count];
            if (!items.count) continue;
            items.values = room_for<int32_t>(items.count);
            strips_.items(job_, m, count, rows.cell, rows.ordinal, offsets, items.values->as<int32_t>(), inputs);
        }
        if (!job_.context) return;
        int32_t* output = out.field[1] + row;
        for (int64_t i = 0; i < count; ++i)
            output[i] = SG_NAMESPACE::cut_output(output[i], inputs[i], job_.context[rows.cell[i]]);
    }

    const SgStrips& strips_;
    const SgJob job_;
    Drawn drawn_;
    const int64_t threads_;
    SgFields fields_ = {};
    std::vector<Items> items_[SG_MODALITIES];
    int64_t totals_[SG_MODALITIES] = {};
};
