// From first turns of conversations to the turns that arrive in a span of time.
//
//   times of first turns -> numbers of turns -> inter-turn times -> conversations that still go on -> fields -> rows
//
// Most conversations that begin long before the span are over when it begins: nothing is kept of them. Conversations are
// followed a few at a time, in scratch that stays in cache.
#pragma once

#include <cstring>

#include "draw.h"
#include "order.h"
#include "sessions.h"

struct NoRoom {};  // for the id of a session

// Turns, or conversations by their first ones, end to end.
struct Lanes {
    std::vector<int32_t> cell, turn;
    std::vector<uint32_t> ordinal;
    std::vector<int64_t> us;

    void resize(size_t count) {
        cell.resize(count), turn.resize(count), ordinal.resize(count), us.resize(count);
    }
    void clear() { resize(0); }
    int64_t size() const { return static_cast<int64_t>(cell.size()); }
    SgLanes lanes(bool first) const { return {size(), cell.data(), ordinal.data(), first ? nullptr : turn.data()}; }
};

class Following {
  public:
    // `rows`: whole rows are wanted, or else only when turns come.
    Following(const SgStrips& strips, const SgJob& job, const SgTurns& turns, const SgSessions& sessions, Drawn drawn,
              bool rows)
        : strips_(strips), job_(job), turns_(turns), sessions_(sessions), drawn_(std::move(drawn)), rows_(rows),
          threads_(std::max<int64_t>(job.threads, 1)), workers_(threads_), first_ids_(first_ids(job, sessions)) {
        find_reach();
        for (int64_t f = 0; f < job.scalar_fields; ++f) fields_.lane[fields_.count++] = static_cast<int32_t>(f);
        for (Piece piece : drawn_.pieces)
            for (uint32_t left = piece.count; left; left -= piece.count) {
                piece.count = std::min<uint32_t>(left, BLOCK);
                pieces_.push_back(piece);
                piece.times += piece.count;
                piece.first += piece.count;
            }
        const auto count = [&](int64_t k) { return pieces_[k].count; };
        open_ = ranges_of(0, static_cast<int64_t>(pieces_.size()), TASK, count);
    }

    // Draws on until there are about `most` turns; how many there are, and 0 once all conversations are done.
    int64_t next(int64_t most) {
        for (Worker& worker : workers_) worker.forget();
        std::atomic<int64_t> turns{0};
        std::vector<char> done(open_.size(), 0);
        for_each(static_cast<int64_t>(open_.size()), threads_, job_.stop, [&](int64_t i, int64_t t) {
            if (turns >= most) return;
            const int64_t before = workers_[t].turns();
            follow_pieces(open_[i], workers_[t]);
            turns += workers_[t].turns() - before;
            done[i] = 1;
        });
        std::vector<Range> left;
        for (size_t i = 0; i < open_.size(); ++i)
            if (!done[i]) left.push_back(open_[i]);
        open_ = std::move(left);
        return turns;
    }

    // The rows of these turns in their order.
    void write(SgTurnRow* out) const {
        std::vector<TurnRows> parts;
        for (const Worker& worker : workers_) worker.rows.list(parts);
        Ordering(strips_, parts, threads_).write(out);
    }

    // How many conversations these turns are of, where no rows are wanted.
    int64_t conversations() const {
        int64_t count = 0;
        for (const Worker& worker : workers_) count += worker.begun.size();
        return count;
    }

    // First turns, number of turns, and the time of every turn since the first one.
    void write_courses(int64_t* us, int32_t* cell, uint32_t* ordinal, int32_t* turns, int64_t* since_us) const {
        for (const Worker& worker : workers_) {
            us = std::copy(worker.begun.us.begin(), worker.begun.us.end(), us);
            cell = std::copy(worker.begun.cell.begin(), worker.begun.cell.end(), cell);
            ordinal = std::copy(worker.begun.ordinal.begin(), worker.begun.ordinal.end(), ordinal);
            turns = std::copy(worker.begun.turn.begin(), worker.begun.turn.end(), turns);
            since_us = std::copy(worker.since_us.begin(), worker.since_us.end(), since_us);
        }
    }

  private:
    static constexpr int64_t TASK = 4 * BLOCK;      // first turns that a thread takes
    static constexpr int64_t TOGETHER = 1024;       // conversations that are followed together
    static constexpr int64_t TURNS_TOGETHER = 4096;  // of conversations that are drawn together
    static constexpr int REACH_SHIFT = 24;           // steps of 17 s
    static constexpr uint64_t NEVER = uint64_t{1} << 32;
    static constexpr int32_t NO_LIMIT = 0x7FFFFFFF;  // tokens are int32

    struct Worker {
        Lanes first, later, kept;  // first turns; later turns of all; turns of conversations that go on
        std::vector<int32_t> count, open, chosen, model, fields[SG_NAMESPACE::TURN_FIELDS], fresh;
        std::vector<uint64_t> bound;  // a word as large makes it possible that a conversation still goes on
        std::vector<uint32_t> word[2];
        std::vector<int64_t> gap_us, ids;
        std::vector<uint64_t> words;
        // what has come of it
        RowList rows;
        Lanes begun;  // `turn` is how many turns there are
        std::vector<int64_t> since_us;

        void forget() {
            rows.clear();
            begun.clear();
            since_us.clear();
        }
        int64_t turns() const { return rows.size() + static_cast<int64_t>(since_us.size()); }
    };

    void follow_pieces(Range pieces, Worker& worker) const {
        Lanes& first = worker.first;
        first.resize(TOGETHER);
        int64_t n = 0;
        for (int64_t k = pieces.begin; k < pieces.end; ++k) {
            const Piece& piece = pieces_[k];
            for (uint32_t i = 0; i < piece.count; ++i) {
                const int64_t us = piece.origin_us + piece.times[i];
                first.us[n] = us;
                first.cell[n] = piece.cell;
                first.ordinal[n] = piece.first + i;
                n += us >= 0 && us < job_.span_us;
                if (n == TOGETHER) {
                    follow(worker);
                    n = 0;
                }
            }
        }
        first.resize(n);
        if (n) follow(worker);
    }

    void follow(Worker& worker) const {
        const Lanes& first = worker.first;
        const int64_t n = first.size();
        worker.count.resize(n);
        strips_.turn_counts(job_, turns_, first.lanes(true), worker.count.data());
        choose(worker);
        const auto turns = [&](int64_t i) { return worker.count[worker.chosen[i]]; };
        for (const Range& some : ranges_of(0, static_cast<int64_t>(worker.chosen.size()), TURNS_TOGETHER, turns)) {
            draw_later(worker, some);
            if (rows_) worker.begun.clear(), worker.since_us.clear();
            const int64_t* gap_us = worker.gap_us.data();
            for (int64_t i = some.begin; i < some.end; ++i) {
                keep_course(worker, worker.chosen[i], gap_us);
                gap_us += turns(i) - 1;
            }
            if (rows_ && worker.begun.size()) make_rows(worker);
            if (rows_) worker.begun.clear(), worker.since_us.clear();
        }
    }

    // Leaves out conversations that are over before the span begins whatever their words stand for exactly, which are
    // nearly all in a warm-up: those where no inter-turn time can be as long as the mean one that is missing.
    void choose(Worker& worker) const {
        const Lanes& first = worker.first;
        const int64_t n = first.size();
        worker.bound.resize(n);
        worker.open.resize(n);
        worker.chosen.resize(n);
        int64_t chosen = 0, open = 0;
        for (int64_t k = 0; k < n; ++k) {
            const int64_t missing_us = turns_.from_us - first.us[k];
            const int32_t gaps = worker.count[k] - 1;
            const double mean_us = static_cast<double>(missing_us) / gaps;
            worker.bound[k] = missing_us > 0 && gaps ? reach(turns_.model[first.cell[k]], mean_us) : NEVER;
            worker.chosen[chosen] = worker.open[open] = static_cast<int32_t>(k);
            chosen += missing_us <= 0;
            open += worker.bound[k] < NEVER;
        }
        worker.chosen.resize(chosen);
        // turn by turn
        Lanes& later = worker.later;
        for (int32_t turn = 1; open; ++turn) {
            later.resize(open);
            for (int64_t i = 0; i < open; ++i) later.cell[i] = first.cell[worker.open[i]];
            for (int64_t i = 0; i < open; ++i) later.ordinal[i] = first.ordinal[worker.open[i]];
            std::fill(later.turn.begin(), later.turn.end(), turn);
            draw_words(worker);
            int64_t left = 0;
            for (int64_t i = 0; i < open; ++i) {
                const int32_t k = worker.open[i];
                const bool found = worker.word[0][i] >= worker.bound[k];
                if (found) worker.chosen.push_back(k);
                worker.open[left] = k;
                left += !found && turn + 1 < worker.count[k];
            }
            open = left;
        }
    }

    // Inter-turn times of some of the chosen conversations.
    void draw_later(Worker& worker, Range some) const {
        const Lanes& first = worker.first;
        Lanes& later = worker.later;
        int64_t all = 0;
        for (int64_t i = some.begin; i < some.end; ++i) all += worker.count[worker.chosen[i]] - 1;
        later.resize(all);
        worker.model.resize(all);
        worker.gap_us.resize(all);
        int64_t at = 0;
        for (int64_t i = some.begin; i < some.end; ++i) {
            const int32_t k = worker.chosen[i], cell = first.cell[k];
            for (int32_t turn = 1; turn < worker.count[k]; ++turn, ++at) {
                later.cell[at] = cell;
                later.ordinal[at] = first.ordinal[k];
                later.turn[at] = turn;
                worker.model[at] = turns_.model[cell];
            }
        }
        draw_words(worker);
        strips_.turn_gaps(turns_, all, worker.model.data(), worker.word[0].data(), worker.word[1].data(),
                          worker.gap_us.data());
    }

    void draw_words(Worker& worker) const {
        for (auto& word : worker.word) word.resize(worker.later.size());
        strips_.turn_words(job_, worker.later.lanes(false), worker.word[0].data(), worker.word[1].data());
    }

    // A word below which no inter-turn time of a model is so long.
    uint64_t reach(int32_t model, double gap_us) const {
        const std::vector<uint64_t>& of_model = reach_[model];
        const size_t step = static_cast<size_t>(std::max<int64_t>(static_cast<int64_t>(gap_us) - 1, 0)) >> REACH_SHIFT;
        return step < of_model.size() ? of_model[step] : NEVER;
    }

    void find_reach() {
        if (!job_.cells) return;
        const int64_t entries = (int64_t{1} << turns_.gap_guide_bits) + 1;
        const int32_t models = 1 + *std::max_element(turns_.model, turns_.model + job_.cells);
        reach_.resize(models);
        for (int32_t model = 0; model < models; ++model) {
            const int32_t* guide = turns_.gap_guide + model * entries;
            uint64_t below = 0;  // the first word that may last as long
            for (int32_t bin = guide[0]; bin <= guide[entries - 1]; ++bin) {
                const int32_t at = turns_.gap_values[bin];
                const size_t steps = static_cast<size_t>((turns_.gap_us[at] + turns_.gap_width_us[at]) >> REACH_SHIFT) + 1;
                if (steps > reach_[model].size()) reach_[model].resize(steps, below);
                below = uint64_t{turns_.gap_thresholds[bin]} + 1;
            }
        }
    }

    // Keeps a conversation if a turn of it arrives in the span.
    void keep_course(Worker& worker, int64_t k, const int64_t* gap_us) const {
        const Lanes& first = worker.first;
        const int64_t session_us = turns_.session_us[turns_.model[first.cell[k]]];
        const int64_t from_us = turns_.from_us - first.us[k], to_us = turns_.to_us - first.us[k];
        const int32_t count = worker.count[k];
        bool inside = 0 >= from_us && 0 < to_us;
        int64_t last_us = 0;
        int32_t turns = 1;
        for (; turns < count && last_us + gap_us[turns - 1] <= session_us; ++turns) {
            last_us += gap_us[turns - 1];
            inside |= last_us >= from_us && last_us < to_us;
        }
        if (!inside) return;
        Lanes& begun = worker.begun;
        begun.us.push_back(first.us[k]);
        begun.cell.push_back(first.cell[k]);
        begun.ordinal.push_back(first.ordinal[k]);
        begun.turn.push_back(turns);
        int64_t since_us = 0;
        worker.since_us.push_back(0);
        for (int32_t turn = 1; turn < turns; ++turn) worker.since_us.push_back(since_us += gap_us[turn - 1]);
    }

    void make_rows(Worker& worker) const {
        const Lanes& begun = worker.begun;
        Lanes& kept = worker.kept;
        kept.resize(worker.since_us.size());
        int64_t at = 0;
        for (int64_t k = 0; k < begun.size(); ++k)
            for (int32_t turn = 0; turn < begun.turn[k]; ++turn, ++at) {
                kept.cell[at] = begun.cell[k];
                kept.ordinal[at] = begun.ordinal[k];
                kept.turn[at] = turn;
                kept.us[at] = begun.us[k] + worker.since_us[at];
            }
        int32_t* out[SG_NAMESPACE::TURN_FIELDS];
        for (int f = 0; f < SG_NAMESPACE::TURN_FIELDS; ++f) {
            worker.fields[f].resize(at);
            out[f] = worker.fields[f].data();
        }
        strips_.turn_fields(job_, turns_, fields_, kept.lanes(false), out);
        worker.ids.resize(begun.size());
        if (!strips_.session_ids(job_, sessions_, first_ids_.data(), begun.lanes(true), worker.ids.data())) throw NoRoom();
        worker.fresh.resize(at);
        at = 0;
        for (int64_t k = 0; k < begun.size(); ++k) {
            const int64_t turns = begun.turn[k];
            const uint8_t growth = turns_.growth[turns_.model[begun.cell[k]]];
            if (growth == SORTED) sort(worker, at, turns);
            else grow(worker, at, turns, begun.cell[k], growth == HISTORY);
            put(worker, at, turns, begun.cell[k], worker.ids[k]);
            at += turns;
        }
    }

    // Inputs in ascending order; whole requests change places, so that their fields stay together.
    void sort(Worker& worker, int64_t at, int64_t turns) const {
        int32_t* input = worker.fields[SG_NAMESPACE::INPUT].data() + at;
        worker.words.resize(4 * turns);
        uint64_t* words = worker.words.data();
        for (int64_t i = 0; i < turns; ++i) words[i] = static_cast<uint64_t>(input[i]) << 32 | static_cast<uint64_t>(i);
        words = strips_.sort(words, words + turns, turns, 32);
        int32_t* taken = reinterpret_cast<int32_t*>(worker.words.data() + 2 * turns);
        for (int64_t f = 1; f < fields_.count; ++f) {
            int32_t* field = worker.fields[f].data() + at;
            std::copy(field, field + turns, taken);
            for (int64_t i = 0; i < turns; ++i) field[i] = taken[static_cast<uint32_t>(words[i])];
        }
        for (int64_t i = 0; i < turns; ++i) input[i] = static_cast<int32_t>(words[i] >> 32);
        int32_t* fresh = worker.fresh.data() + at;
        for (int64_t i = 0; i < turns; ++i) fresh[i] = i ? input[i] - input[i - 1] : input[i];
    }

    // Inputs with those before them, and with the answers if those are repeated: equals
    // servegen_gpu/backends/host/growth.py.
    void grow(Worker& worker, int64_t at, int64_t turns, int32_t cell, bool answers) const {
        int32_t *input = worker.fields[SG_NAMESPACE::INPUT].data() + at, *fresh = worker.fresh.data() + at;
        const int32_t* output = worker.fields[SG_NAMESPACE::OUTPUT].data() + at;
        const int32_t* reason = worker.fields[job_.ratio_field].data() + at;
        const int64_t limit = job_.context && job_.context[cell] > 0 ? job_.context[cell] : NO_LIMIT;
        bool lost = false;
        fresh[0] = input[0];
        for (int64_t i = 1; i < turns; ++i) {
            const int64_t said = answers ? output[i - 1] - (job_.ratio_field > 0 ? reason[i - 1] : 0) : 0;
            const int64_t before = input[i - 1] + said;
            const int64_t room = std::max<int64_t>(limit - input[i] - output[i], 0);
            lost |= room < before;
            const int32_t whole = static_cast<int32_t>(input[i] + std::min(before, room));
            fresh[i] = lost ? whole : input[i];
            input[i] = whole;
        }
    }

    // Rows of the turns inside the span.
    void put(Worker& worker, int64_t at, int64_t turns, int32_t cell, int64_t id) const {
        for (int64_t i = at; i < at + turns; ++i) {
            const int64_t us = worker.kept.us[i];
            if (us < turns_.from_us || us >= turns_.to_us) continue;
            SgTurnRow row = {us + turns_.offset_us, id, job_.client_column[cell], static_cast<int32_t>(i - at) + 1,
                             worker.fresh[i], {}};
            for (int64_t f = 0; f < fields_.count; ++f) row.field[f] = worker.fields[f][i];
            worker.rows.add(row);
        }
    }

    const SgStrips& strips_;
    const SgJob job_;
    const SgTurns turns_;
    const SgSessions sessions_;
    const Drawn drawn_;
    const bool rows_;
    const int64_t threads_;
    std::vector<Worker> workers_;
    std::vector<Piece> pieces_;
    std::vector<Range> open_;  // tasks that are not done
    const std::vector<int64_t> first_ids_;
    std::vector<std::vector<uint64_t>> reach_;  // [models][steps]
    SgFields fields_ = {};
};
