// Second half of the CPU driver: from times to sorted columns.
//
// The time axis is cut into chunks, runs of bins with about as many requests as stay in cache together. A thread makes
// a chunk from end to end: it finds the chunk's requests in every piece, draws their fields client by client,
// puts their records into bins, sorts each bin, and writes the rows where they belong. Rows are known beforehand.
#pragma once

#include "context.h"
#include "draw.h"
#include "sessions.h"

constexpr int64_t CHUNK = 4 * BIN;
constexpr int64_t REQUESTS_PER_PIECE = 2;  // at least, in a chunk: it looks at all pieces of its windows

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
        fields_.words = SG_NAMESPACE::record_words(static_cast<int>(fields_.count), fields_.ordinal);
        for (int64_t m = 0; m < job.modalities; ++m) items_[m].resize(is_silent(job.count_field + m) ? 0 : drawn_.bins());
    }

    int64_t count() const { return drawn_.count(); }

    // Whether any request may have items of a modality.
    bool has_items(int64_t modality) const { return !items_[modality].empty(); }

    // Writes all columns but the values of items; offsets of items begin anew in every bin. False if the id of a session
    // has no room.
    bool write(const SgOut& out) {
        const std::vector<Range> chunks = cut();
        std::vector<Worker> workers(threads_);
        if (out.sessions) first_ids_ = first_ids(job_, *out.sessions);
        find_due(out);
        find_slices(chunks);
        for_each(static_cast<int64_t>(chunks.size()), threads_, job_.stop,
                 [&](int64_t c, int64_t t) { write_chunk(c, chunks[c], out, workers[t]); });
        slices_.clear();
        drawn_.memory.clear();
        for (int64_t m = 0; m < job_.modalities; ++m)
            for (const Items& items : items_[m]) totals_[m] += items.count;
        return !no_room_;
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
    // Requests of one piece in one chunk.
    struct Slice {
        uint32_t piece, first, count;
    };

    struct Worker {
        std::vector<SgRun> runs;
        std::vector<uint32_t> next;
        Scratch<uint32_t> records;
        Scratch<uint64_t> words;
        Scratch<int32_t> cell, counts;
        Scratch<uint32_t> ordinal, places;
        Scratch<int64_t> offsets;
    };

    // Where the turns that are due belong: before each bin.
    void find_due(const SgOut& out) {
        due_begins_.assign(drawn_.bins() + 1, 0);
        const SgTurnRow* end = out.due + out.due_count;
        for (int64_t bin = 1; bin < drawn_.bins(); ++bin)
            due_begins_[bin] = std::partition_point(out.due + due_begins_[bin - 1], end, [&](const SgTurnRow& row) {
                return row.arrival_us < (bin << drawn_.shift) + out.offset_us;
            }) - out.due;
        due_begins_.back() = out.due_count;
    }

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
        const int64_t most = std::max(8 * threads_, count() / std::max<int64_t>(REQUESTS_PER_PIECE * pieces, 1));
        return ranges_of(0, drawn_.bins(), std::max(CHUNK, count() / most),
                         [&](int64_t b) { return drawn_.bin_begins[b + 1] - drawn_.bin_begins[b]; });
    }

    // Slices of every chunk. Threads go through the pieces in the order in which their times are in memory, once.
    void find_slices(const std::vector<Range>& chunks) {
        std::vector<uint32_t> chunk_of(drawn_.bins());
        for (size_t c = 0; c < chunks.size(); ++c)
            std::fill(chunk_of.begin() + chunks[c].begin, chunk_of.begin() + chunks[c].end, static_cast<uint32_t>(c));
        const int64_t pieces = static_cast<int64_t>(drawn_.pieces.size());
        const std::vector<Range> parts = ranges_of(0, pieces, std::max(CHUNK, count() / (4 * threads_)),
                                                   [&](int64_t k) { return drawn_.pieces[k].count; });
        slices_.resize(parts.size());
        for_each(static_cast<int64_t>(parts.size()), threads_, job_.stop, [&](int64_t p, int64_t) {
            std::vector<std::vector<Slice>>& of_chunk = slices_[p];
            of_chunk.resize(chunks.size());
            for (int64_t k = parts[p].begin; k < parts[p].end; ++k) {
                const Piece& piece = drawn_.pieces[k];
                const uint32_t *times = piece.times, *end = times + piece.count;
                end = up_to(times, end, job_.span_us - piece.origin_us);
                for (const uint32_t* a = up_to(times, end, -piece.origin_us); a < end;) {
                    const uint32_t c = chunk_of[(piece.origin_us + *a) >> drawn_.shift];
                    const uint32_t* b = up_to(a, end, (chunks[c].end << drawn_.shift) - piece.origin_us);
                    of_chunk[c].push_back({static_cast<uint32_t>(k), static_cast<uint32_t>(a - times),
                                           static_cast<uint32_t>(b - a)});
                    a = b;
                }
            }
        });
    }

    void write_chunk(int64_t c, Range chunk, const SgOut& out, Worker& worker) {
        const std::vector<int64_t>& begins = drawn_.bin_begins;
        const int64_t row = begins[chunk.begin], count = begins[chunk.end] - row;
        if (!count && due_begins_[chunk.begin] == due_begins_[chunk.end]) return;
        worker.next.resize(chunk.end - chunk.begin);
        for (int64_t b = chunk.begin; b < chunk.end; ++b)
            worker.next[b - chunk.begin] = static_cast<uint32_t>(begins[b] - row);
        const SgBins bins = {worker.records.of(count * fields_.words), chunk.begin, drawn_.shift};
        std::vector<SgRun>& runs = worker.runs;
        runs.clear();
        for (const auto& part : slices_)
            for (const Slice& slice : part[c]) {
                const Piece& piece = drawn_.pieces[slice.piece];
                runs.push_back({piece.times + slice.first, piece.origin_us, piece.first + slice.first, slice.count, piece.cell});
            }
        strips_.records(job_, fields_, runs.data(), static_cast<int64_t>(runs.size()), bins, worker.next.data());
        for (int64_t b = chunk.begin; b < chunk.end; ++b) write_bin(bins, b, row, out, worker);
    }

    void write_bin(const SgBins& bins, int64_t bin, int64_t row_of_chunk, const SgOut& out, Worker& worker) {
        const int64_t begin = drawn_.bin_begins[bin] - row_of_chunk;
        const int64_t known = drawn_.bin_begins[bin + 1] - drawn_.bin_begins[bin];
        const int64_t due = due_begins_[bin + 1] - due_begins_[bin];
        const int64_t row = drawn_.bin_begins[bin] + due_begins_[bin], count = known + due;
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
            rows.ordinal = out.ordinal ? out.ordinal + row : worker.ordinal.of(count);
        }
        if (due) {
            rows.due = out.due + due_begins_[bin];
            rows.due_count = due;
            rows.due_place = worker.places.of(due);
        }
        strips_.columns(job_, fields_, bins, begin, known, rows, worker.words.of(2 * count));
        if (out.sessions) write_sessions(out, row, known, rows);
        if (!job_.modalities) return;
        int32_t* inputs = out.inputs + row;
        memcpy(inputs, out.field[SG_NAMESPACE::INPUT] + row, count * sizeof(int32_t));
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
        int32_t* output = out.field[SG_NAMESPACE::OUTPUT] + row;
        for (int64_t i = 0; i < count; ++i)
            output[i] = SG_NAMESPACE::cut_output(output[i], inputs[i], job_.context[rows.cell[i]]);
    }

    // What rows have beside conversations, and the turns that are due.
    void write_sessions(const SgOut& out, int64_t row, int64_t known, const SgRows& rows) {
        const int64_t count = known + rows.due_count;
        int64_t* ids = out.conversation + row;
        if (known && !strips_.session_ids(job_, *out.sessions, first_ids_.data(), {count, rows.cell, rows.ordinal, nullptr}, ids))
            no_room_ = true;
        std::fill(out.turn + row, out.turn + row + count, 1);
        if (known) memcpy(out.new_tokens + row, out.field[SG_NAMESPACE::INPUT] + row, count * sizeof(int32_t));
        for (int64_t i = 0; i < rows.due_count; ++i) {
            const SgTurnRow& due = rows.due[i];
            const int64_t at = rows.due_place[i];
            rows.arrival_us[at] = due.arrival_us;
            rows.client[at] = due.client;
            ids[at] = due.conversation;
            out.turn[row + at] = due.turn;
            out.new_tokens[row + at] = due.new_tokens;
            for (int64_t k = 0; k < fields_.count; ++k) rows.field[k][at] = due.field[k];
        }
    }

    const SgStrips& strips_;
    const SgJob job_;
    Drawn drawn_;
    const int64_t threads_;
    SgFields fields_ = {};
    std::vector<std::vector<std::vector<Slice>>> slices_;  // [parts of the pieces][chunks]
    std::vector<int64_t> due_begins_;  // [bins + 1]
    std::vector<int64_t> first_ids_;   // [cells]
    std::atomic<bool> no_room_{false};
    std::vector<Items> items_[SG_MODALITIES];
    int64_t totals_[SG_MODALITIES] = {};
};
