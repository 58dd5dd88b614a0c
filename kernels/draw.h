// First half of the CPU driver: from cells to the times of their requests.
//
//   segments (consecutive requests of a cell) -> gaps -> ticks -> sums -> times -> pieces (rising times of a cell)
//
// A cell of up to a block is drawn in one go, in scratch that stays in cache; larger cells wait after each step until
// all their segments have it. Only times are kept: 32 bits a request, since the window's begin.
#pragma once

#include "host.h"
#include "job.h"
#include "position.h"

constexpr int64_t BLOCK = 8192;        // requests a block: their gaps stay in the second-level cache
constexpr int64_t BATCH = 64 * BLOCK;  // requests of large cells at a time: their sums stay in the third-level cache
constexpr int64_t BIN = 8192;          // requests that a bin of time is meant to hold
constexpr int64_t MAX_BINS = 1 << 15;
constexpr int64_t WINDOW_TICKS = SG_NAMESPACE::WINDOW_TICKS;

// Requests of one cell with times that never fall, in order of their ordinals: a segment, or one side of the window's
// end in a segment that passes it.
struct Piece {
    const uint32_t* times;  // since the window's begin
    int64_t origin_us;      // the window's begin, on the slab's axis
    uint32_t first, count;
    int32_t cell;
};

// Runs as segments of a block at most; `count` and `first` as in servegen_gpu/backends/host/cell_state.py.
struct Runs {
    const int64_t *cell, *first, *count, *before;
    int64_t runs;
};

// What is known of a slab once its times are drawn.
struct Drawn {
    std::vector<Held> memory;         // what the pieces point into
    std::vector<Piece> pieces;        // by cell
    std::vector<int64_t> bin_begins;  // [bins + 1]: rows before each bin of time
    int shift = 0;                    // time >> shift is the bin
    int64_t bins() const { return static_cast<int64_t>(bin_begins.size()) - 1; }
    int64_t count() const { return bin_begins.back(); }
};

// Two sums of ticks together, never beyond the window's: a renewal cell stays at its end.
inline int64_t join(int64_t before, int64_t ticks) { return before + std::min(ticks, WINDOW_TICKS - before); }

// The first time at or after an instant, which is hardly ever far from the first of them: steps double, then halve.
inline const uint32_t* up_to(const uint32_t* a, const uint32_t* end, int64_t at) {
    if (a == end || at <= int64_t{a[0]}) return a;
    if (at > int64_t{end[-1]}) return end;
    const uint32_t time = static_cast<uint32_t>(at);
    int64_t step = 1;
    while (step < end - a && a[step] < time) step *= 2;
    return std::lower_bound(a + step / 2, std::min(a + step, end), time);
}

class Drawing {
  public:
    Drawing(const SgStrips& strips, const SgJob& job) : strips_(strips), job_(job), threads_(threads_of(job)) {
        scratch_.resize(threads_);
        histogram_.resize(threads_);
    }

    // All requests of the cells; finds the unit and the sum of each counted cell.
    Drawn whole() {
        for (int64_t cell = 0; cell < job_.cells; ++cell) lay_out(static_cast<int32_t>(cell));
        begin();
        draw_small();
        draw_large();
        draw_on();
        return finished();
    }

    // Known runs of cells whose unit and sum are known. Runs are no longer than a block.
    Drawn known(const Runs& runs) {
        for (int64_t r = 0; r < runs.runs; ++r)
            add(runs.cell[r], runs.first[r], runs.count[r], runs.before[r]);
        small_ = ranges_of(0, size(), BLOCK, [&](int64_t k) { return segments_[k].count; });
        begin();
        for_each(static_cast<int64_t>(small_.size()), threads_, job_.stop, [&](int64_t b, int64_t t) {
            take_scratch(small_[b], t);
            strips_.gaps(job_, &segments_[small_[b].begin], small_[b].end - small_[b].begin);
            place(small_[b], t);
        });
        return finished();
    }

  private:
    static int64_t threads_of(const SgJob& job) { return std::max<int64_t>(job.threads, 1); }
    int64_t size() const { return static_cast<int64_t>(segments_.size()); }
    bool is_renewal(const SgSegment& segment) const { return job_.rule[segment.cell] == SG_NAMESPACE::RENEWAL; }
    bool is_last(int64_t k) const { return k + 1 == size() || segments_[k + 1].cell != segments_[k].cell; }

    void add(int64_t cell, int64_t first, int64_t count, int64_t before) {
        segments_.push_back({nullptr, nullptr, before, 0, 0.0, static_cast<uint32_t>(first),
                             static_cast<uint32_t>(count), static_cast<uint32_t>(count), static_cast<int32_t>(cell)});
        total_ += count;
    }

    // The segments of a cell, and into which block they go.
    void lay_out(int32_t cell) {
        int64_t left = job_.count[cell];
        if (job_.rule[cell] == SG_NAMESPACE::RENEWAL) left = job_.first_ticks[cell] < WINDOW_TICKS ? job_.capacity[cell] : 0;
        if (left == 0) return;
        const int64_t k = size();
        const bool large = left > BLOCK;
        if (large) {
            for (int64_t first = 0; first < left; first += BLOCK) add(cell, first, std::min(BLOCK, left - first), 0);
            large_.push_back({k, size()});
            in_block_ = BLOCK;  // the block before ends here
            return;
        }
        add(cell, 0, left, 0);
        if (in_block_ + left > BLOCK || small_.empty()) {
            small_.push_back({k, k});
            in_block_ = 0;
        }
        small_.back().end = k + 1;
        in_block_ += left;
    }

    // Room for the times, and bins for the sort.
    void begin() {
        drawn_.memory.push_back(room_for<uint32_t>(total_ + SG_PAD));
        uint32_t* times = drawn_.memory.back()->as<uint32_t>();
        for (SgSegment& segment : segments_) {
            segment.times = times;
            times += segment.count;
        }
        const int64_t span = std::max<int64_t>(job_.span_us, 1);
        const int64_t wanted = std::min(std::max<int64_t>(total_ / BIN, 1), MAX_BINS);
        // the low part of a time has 32 bits of a record
        while (drawn_.shift < 32 && (span - 1) >> drawn_.shift >= wanted) ++drawn_.shift;
        drawn_.bin_begins.resize(((span - 1) >> drawn_.shift) + 2);
        for (auto& of_thread : histogram_) of_thread.assign(drawn_.bins() + 1, 0);
    }

    void take_scratch(Range block, int64_t t) {
        int64_t count = 0;
        for (int64_t k = block.begin; k < block.end; ++k) count += segments_[k].count;
        int64_t* data = scratch_[t].of(count + SG_PAD);
        for (int64_t k = block.begin; k < block.end; ++k) {
            segments_[k].data = data;
            data += segments_[k].count;
        }
    }

    // From gaps to times, for segments whose ticks can be known.
    void place(Range block, int64_t t) {
        strips_.ticks(job_, &segments_[block.begin], block.end - block.begin);
        for (int64_t k = block.begin; finds_sums_ && k < block.end; ++k)
            if (!is_renewal(segments_[k])) job_.ticks_in_all[segments_[k].cell] = segments_[k].total;
        strips_.times(job_, &segments_[block.begin], block.end - block.begin, drawn_.shift, histogram_[t].data());
    }

    void draw_small() {
        finds_sums_ = true;
        for_each(static_cast<int64_t>(small_.size()), threads_, job_.stop, [&](int64_t b, int64_t t) {
            take_scratch(small_[b], t);
            strips_.gaps(job_, &segments_[small_[b].begin], small_[b].end - small_[b].begin);
            for (int64_t k = small_[b].begin; k < small_[b].end; ++k)
                if (!is_renewal(segments_[k])) job_.log_unit[segments_[k].cell] = segments_[k].peak;
            place(small_[b], t);
        });
        finds_sums_ = false;
    }

    void draw_large() {
        const auto requests = [&](int64_t c) {
            int64_t sum = 0;
            for (int64_t k = large_[c].begin; k < large_[c].end; ++k) sum += segments_[k].count;
            return sum;
        };
        for (const Range& batch : ranges_of(0, static_cast<int64_t>(large_.size()), BATCH, requests)) draw_batch(batch);
    }

    void draw_batch(Range batch) {
        std::vector<SgSegment*> all;
        int64_t count = 0;
        for (int64_t c = batch.begin; c < batch.end; ++c)
            for (int64_t k = large_[c].begin; k < large_[c].end; ++k) {
                all.push_back(&segments_[k]);
                count += segments_[k].count;
            }
        int64_t* data = sums_of_batch_.of(count + SG_PAD * static_cast<int64_t>(all.size()));
        for (SgSegment* segment : all) {
            segment->data = data;
            data += segment->count + SG_PAD;  // another thread may write what follows
        }
        const auto each = [&](const auto& work) {
            for_each(static_cast<int64_t>(all.size()), threads_, job_.stop,
                     [&](int64_t i, int64_t t) { work(*all[i], t); });
        };
        each([&](SgSegment& segment, int64_t) {
            strips_.gaps(job_, &segment, 1);
            if (is_renewal(segment)) strips_.ticks(job_, &segment, 1);
        });
        for (int64_t c = batch.begin; c < batch.end; ++c) {
            if (is_renewal(segments_[large_[c].begin])) continue;
            double peak = segments_[large_[c].begin].peak;
            for (int64_t k = large_[c].begin; k < large_[c].end; ++k) peak = std::max(peak, segments_[k].peak);
            job_.log_unit[segments_[large_[c].begin].cell] = peak;
        }
        each([&](SgSegment& segment, int64_t) {
            if (!is_renewal(segment)) strips_.ticks(job_, &segment, 1);
        });
        for (int64_t c = batch.begin; c < batch.end; ++c) {
            int64_t before = 0;
            for (int64_t k = large_[c].begin; k < large_[c].end; ++k) {
                segments_[k].before = before;
                before = join(before, segments_[k].total);
            }
            SgSegment& first = segments_[large_[c].begin];
            if (!is_renewal(first)) job_.ticks_in_all[first.cell] = before;
        }
        each([&](SgSegment& segment, int64_t t) {
            if (is_renewal(segment) && segment.before >= WINDOW_TICKS) segment.count = segment.wrap = 0;
            else strips_.times(job_, &segment, 1, drawn_.shift, histogram_[t].data());
        });
    }

    // Renewal cells that have not passed the window's end after the gaps that were laid out: draw on.
    void draw_on() {
        std::vector<int64_t> open;
        for (int64_t k = 0; k < size(); ++k)
            if (is_renewal(segments_[k]) && is_last(k) && join(segments_[k].before, segments_[k].total) < WINDOW_TICKS)
                open.push_back(k);
        if (open.empty()) return;
        struct More {
            std::vector<SgSegment> segments;
            std::vector<Held> memory;
        };
        std::vector<More> more(open.size());
        for_each(static_cast<int64_t>(open.size()), threads_, job_.stop, [&](int64_t i, int64_t t) {
            const SgSegment& last = segments_[open[i]];
            int64_t before = join(last.before, last.total);
            int64_t first = int64_t{last.first} + last.count;  // all of them are inside
            while (before < WINDOW_TICKS) {
                const int64_t count = std::min(first / 4 + 4, BLOCK);
                more[i].memory.push_back(room_for<uint32_t>(count + SG_PAD));
                const uint32_t n = static_cast<uint32_t>(count);
                SgSegment segment = {scratch_[t].of(count + SG_PAD), more[i].memory.back()->as<uint32_t>(), before, 0,
                                     0.0, static_cast<uint32_t>(first), n, n, last.cell};
                strips_.gaps(job_, &segment, 1);
                strips_.ticks(job_, &segment, 1);
                const int64_t after = join(before, segment.total);
                strips_.times(job_, &segment, 1, drawn_.shift, histogram_[t].data());
                more[i].segments.push_back(segment);
                before = after;
                first += count;
            }
        });
        std::vector<SgSegment> all;
        size_t i = 0;
        for (int64_t k = 0; k < size(); ++k) {
            all.push_back(segments_[k]);
            if (i == open.size() || open[i] != k) continue;
            all.insert(all.end(), more[i].segments.begin(), more[i].segments.end());
            for (Held& held : more[i].memory) drawn_.memory.push_back(std::move(held));
            ++i;
        }
        segments_ = std::move(all);
    }

    Drawn finished() {
        for (const SgSegment& segment : segments_) {
            const int64_t origin = job_.origin_us[segment.cell];
            const uint32_t side[3] = {0, segment.wrap, segment.count};
            for (int s = 0; s < 2; ++s)
                if (side[s] < side[s + 1])
                    drawn_.pieces.push_back({segment.times + side[s], origin, segment.first + side[s],
                                             side[s + 1] - side[s], segment.cell});
        }
        int64_t sum = 0;
        for (int64_t bin = 0; bin < drawn_.bins(); ++bin) {
            drawn_.bin_begins[bin] = sum;
            for (const auto& of_thread : histogram_) sum += of_thread[bin];
        }
        drawn_.bin_begins.back() = sum;
        return std::move(drawn_);
    }

    const SgStrips& strips_;
    const SgJob& job_;
    const int64_t threads_;
    Drawn drawn_;
    std::vector<SgSegment> segments_;
    std::vector<Range> small_, large_;  // blocks of whole cells; segments of each large cell
    int64_t total_ = 0, in_block_ = 0;
    bool finds_sums_ = false;  // whether segments are whole cells
    std::vector<Scratch<int64_t>> scratch_;
    Scratch<int64_t> sums_of_batch_;
    std::vector<std::vector<uint32_t>> histogram_;
};
