// Rows of turns in their order: arrival, conversation, turn.
//
//   parts -> bins of time, a record each -> every bin sorted in cache
#pragma once

#include <cstring>

#include "host.h"
#include "job.h"

// Rows one behind the other.
struct TurnRows {
    const SgTurnRow* rows;
    int64_t count;
};

// Rows that come one by one, in blocks that never move and are used again.
class RowList {
  public:
    void add(const SgTurnRow& row) {
        if (used_ == static_cast<int64_t>(blocks_.size()) * ROWS) blocks_.push_back(room_for<SgTurnRow>(ROWS));
        blocks_[used_ / ROWS]->as<SgTurnRow>()[used_ % ROWS] = row;
        ++used_;
    }
    void clear() { used_ = 0; }
    int64_t size() const { return used_; }
    void list(std::vector<TurnRows>& parts) const {
        for (int64_t at = 0; at < used_; at += ROWS)
            parts.push_back({blocks_[at / ROWS]->as<SgTurnRow>(), std::min(ROWS, used_ - at)});
    }

  private:
    static constexpr int64_t ROWS = 1 << 15;
    std::vector<Held> blocks_;
    int64_t used_ = 0;
};

class Ordering {
  public:
    Ordering(const SgStrips& strips, std::vector<TurnRows> parts, int64_t threads)
        : strips_(strips), parts_(std::move(parts)), threads_(std::max<int64_t>(threads, 1)) {
        for (const TurnRows& part : parts_) {
            begins_.push_back(count_);
            count_ += part.count;
        }
    }

    int64_t count() const { return count_; }

    void write(SgTurnRow* out) {
        if (!count_) return;
        const int64_t tasks = count_ > BIN_ROWS ? 4 * threads_ : 1;
        lay_out_bins(tasks);
        std::vector<std::vector<int64_t>> next(tasks);
        each(tasks, [&](int64_t task) {
            next[task].assign(bins_, 0);
            for_rows(task, tasks, [&](const SgTurnRow& row) { ++next[task][(row.arrival_us - from_us_) >> shift_]; });
        });
        std::vector<int64_t> begins(bins_ + 1, 0);
        int64_t sum = 0;
        for (int64_t bin = 0; bin < bins_; ++bin) {
            begins[bin] = sum;
            for (auto& of_task : next) {
                const int64_t here = of_task[bin];
                of_task[bin] = sum;
                sum += here;
            }
        }
        begins[bins_] = sum;
        const Held room = room_for<SgTurnRow>(count_);
        SgTurnRow* binned = room->as<SgTurnRow>();
        each(tasks, [&](int64_t task) {
            int64_t* to = next[task].data();
            for_rows(task, tasks, [&](const SgTurnRow& row) { binned[to[(row.arrival_us - from_us_) >> shift_]++] = row; });
        });
        std::vector<Scratch<uint64_t>> scratch(threads_);
        for_each(bins_, threads_, nullptr, [&](int64_t bin, int64_t t) {
            const int64_t n = begins[bin + 1] - begins[bin];
            if (n) sort_bin(binned + begins[bin], n, from_us_ + (bin << shift_), scratch[t], out + begins[bin]);
        });
    }

  private:
    static constexpr int64_t BIN_ROWS = 4096;
    static constexpr int64_t MAX_BINS = 1 << 14;

    template <class Work>
    void each(int64_t tasks, const Work& work) const {
        for_each(tasks, threads_, nullptr, [&](int64_t task, int64_t) { work(task); });
    }

    // work(row) for a task's part of all rows.
    template <class Work>
    void for_rows(int64_t task, int64_t tasks, const Work& work) const {
        int64_t at = count_ * task / tasks;
        const int64_t end = count_ * (task + 1) / tasks;
        size_t part = std::upper_bound(begins_.begin(), begins_.end(), at) - begins_.begin() - 1;
        for (; at < end; ++part) {
            const int64_t begin = begins_[part], stop = std::min(end, begin + parts_[part].count);
            for (; at < stop; ++at) work(parts_[part].rows[at - begin]);
        }
    }

    void lay_out_bins(int64_t tasks) {
        std::vector<int64_t> least(tasks, INT64_MAX), most(tasks, INT64_MIN);
        each(tasks, [&](int64_t task) {
            for_rows(task, tasks, [&](const SgTurnRow& row) {
                least[task] = std::min(least[task], row.arrival_us);
                most[task] = std::max(most[task], row.arrival_us);
            });
        });
        from_us_ = *std::min_element(least.begin(), least.end());
        const int64_t last = *std::max_element(most.begin(), most.end()) - from_us_;
        const int64_t wanted = std::min(std::max<int64_t>(count_ / BIN_ROWS, 1), MAX_BINS);
        while (shift_ < 32 && last >> shift_ >= wanted) ++shift_;  // the low part of a time has 32 bits of a word
        bins_ = (last >> shift_) + 1;
    }

    void sort_bin(const SgTurnRow* rows, int64_t n, int64_t base_us, Scratch<uint64_t>& scratch, SgTurnRow* out) const {
        uint64_t* words = scratch.of(2 * n);
        for (int64_t i = 0; i < n; ++i)
            words[i] = static_cast<uint64_t>(rows[i].arrival_us - base_us) << 32 | static_cast<uint64_t>(i);
        words = strips_.sort(words, words + n, n, shift_);
        const auto is_before = [&](uint64_t one, uint64_t two) {  // of equal arrivals
            const SgTurnRow &a = rows[static_cast<uint32_t>(one)], &b = rows[static_cast<uint32_t>(two)];
            return a.conversation != b.conversation ? a.conversation < b.conversation : a.turn < b.turn;
        };
        for (int64_t i = 0, end; i < n; i = end) {
            for (end = i + 1; end < n && words[end] >> 32 == words[i] >> 32;) ++end;
            if (end - i > 1) std::sort(words + i, words + end, is_before);
        }
        for (int64_t i = 0; i < n; ++i) out[i] = rows[static_cast<uint32_t>(words[i])];
    }

    const SgStrips& strips_;
    const std::vector<TurnRows> parts_;
    const int64_t threads_;
    std::vector<int64_t> begins_;
    int64_t count_ = 0, bins_ = 0, from_us_ = 0;
    int shift_ = 0;
};
