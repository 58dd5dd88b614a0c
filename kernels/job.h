// What the CPU driver (native.cpp) and the loops of one vector extension (strips.cpp) tell each other. Plain data.
//
// Notation as in law/position.py. Axes: cells (clients inside windows, as servegen_gpu/plan.py lists them), segments
// (consecutive requests of one cell), requests.
#pragma once

#include <stdint.h>

#include "request.h"

#if defined(__GNUC__)
#define SG_PREFETCH(ADDRESS) __builtin_prefetch(ADDRESS)
#else
#define SG_PREFETCH(ADDRESS)
#endif

extern "C" {

// Everything that sampling needs of a packed workload and of its cells. servegen_gpu/backends/native/library.py has the same
// fields in the same order.
struct SgJob {
    uint64_t key0, key1;
    // cells
    int64_t cells;
    const uint64_t *client, *window;
    const int32_t* client_column;
    const uint8_t *family, *rule;
    const double *d, *c, *log_d, *boost;  // `gap_constants` of the law
    const int64_t *count, *capacity, *rotation;
    const double *occupancy, *ticks_per_unit;
    const int64_t* first_ticks;
    double* log_unit;
    int64_t* ticks_in_all;
    const int64_t *clock_table, *origin_us;
    const int32_t* table;  // [cells, fields]
    // length tables
    const uint32_t* thresholds;
    const int32_t *values, *guide;
    int64_t guide_bits;
    // clock tables
    const uint32_t* clock_thresholds;
    const int32_t* clock_guide;
    int64_t clock_guide_bits;
    const uint64_t *clock_first, *clock_start_us, *clock_slope;
    int64_t window_us;
    // fields
    int64_t fields, scalar_fields, dependence, ratio_field;
    const double* mixing;      // [mixings, scalar fields, scalar fields]
    const int32_t* mixing_of;  // [cells]
    int64_t ties;              // byte f: the earlier fields on which field f depends, under any matrix, as bits
    const int32_t* context;    // [cells], or null: no limits
    // items: how many modalities, and which fields are the number and the size of the first one's
    int64_t modalities, count_field, item_field;
    int64_t ordinals;  // 1 if the ordinals of rows are wanted
    // the slab: times count from its begin, and requests outside [0, span_us) are dropped
    int64_t span_us;
    int64_t threads;
    const int32_t* stop;  // not 0 when the work is to be given up; or null
};

// How a request finds its instance: the order of ROUTINGS in servegen_gpu/serving/job.py.
enum Routing : int64_t { LEAST_LOADED = 0, ROUND_ROBIN = 1, SESSION_AFFINE = 2 };

// Requests in order of arrival and the instances that serve them, as servegen_gpu/serving/job.py has them.
struct SgServing {
    const int64_t* arrival_ns;
    const int32_t *input_tokens, *output_tokens;
    const int64_t *reserved_tokens, *work_ns;
    const int32_t* session;                  // below 0: none; read where routing is session-affine
    int64_t *wait_ns, *ttft_ns, *decode_ns;  // of every request, to be found
    int64_t requests, sessions, instances, routing, decode_only;
    int64_t step_ps, prefill_step_ps, prefill_ps, decode_ps;
    int64_t step_tokens, max_sequences, kv_tokens;
    const int32_t* stop;
};

// How sessions are named: servegen_gpu/law/session_ids.py.
struct SgSessions {
    const int64_t* window;   // [cells], none below 0
    const int64_t* layouts;  // [count, 4]: bits of client, window and ordinal, and where the range begins
    int64_t count;
    int64_t ordinal_shift;
    int64_t flipped;  // -1 where ids are below 0, or else 0
};

// How inputs of conversations go on: growths of servegen_gpu/packed_turns.py.
enum Growth : uint8_t { SORTED = 0, HISTORY = 1, EDIT = 2 };

// How conversations go on (servegen_gpu/packed_turns.py), and which of their turns are wanted. SgSessions and SgTurns
// have the same fields in the same order in servegen_gpu/backends/native/library.py.
struct SgTurns {
    const int32_t* model;  // [cells]
    const uint32_t* count_thresholds;
    const int32_t *count_values, *count_guide;
    int64_t count_guide_bits;
    const uint32_t* gap_thresholds;
    const int32_t *gap_values, *gap_guide;
    int64_t gap_guide_bits;
    const int64_t *gap_us, *gap_width_us;  // [bins]
    const uint32_t* new_thresholds;
    const int32_t *new_values, *new_guide;
    int64_t new_guide_bits;
    const int32_t* new_table;  // [models], below 0 for the client's own lengths
    const uint8_t* growth;     // [models]
    const int64_t* session_us; // [models]
    int64_t any_new;           // 1 if any model has a table of new tokens
    int64_t from_us, to_us;    // on the slab's axis: turns outside are dropped
    int64_t offset_us;         // added to every time
};

// A turn of a conversation, or a request that stands alone, as a row of a trace. NumPy has the same type in
// servegen_gpu/backends/native/turns.py.
struct SgTurnRow {
    int64_t arrival_us, conversation;
    int32_t client, turn, new_tokens, field[SG_NAMESPACE::TURN_FIELDS];
};

// Clients in windows before it is known which of them send a request, from servegen_gpu/backends/native/cells.py. Rows that
// follow one another with the same gaps share a law; constants are those of first gaps (`equilibrium_constants`).
struct SgGrid {
    uint64_t key0, key1;
    int64_t clients, profiles, laws, windows;
    const uint64_t* client;
    const int64_t* profile;
    const double* rate_factor;
    const int64_t* group;                                        // [clients], or null: one group
    const uint8_t* rule;                                         // [profiles]
    const double* rate_rps;                                      // [rows, profiles]
    const uint8_t* first_draw;                                   // this and the next row: [profiles, laws]
    const double *log_mean_gap, *d, *c, *log_d, *boost, *power;
    const int64_t *row, *law;                                    // these and the next: [windows]
    const uint64_t* number;
    const double* scale;                                         // [groups, windows]: of rates, times the window's length
    int64_t threads;
    const int32_t* stop;
};

}  // extern "C"

// A client that sends in a window.
struct SgCell {
    int64_t expected_q32, count, rotation, first_ticks;
    int32_t client, window;
};

// Consecutive requests of one cell. `data` is scratch: logarithms of gaps, then sums of ticks since the segment's
// begin. Loops read up to SG_PAD numbers of it beyond the segment.
struct SgSegment {
    int64_t* data;
    uint32_t* times;  // microseconds since the window's begin; read up to SG_PAD beyond, as `data` is
    int64_t before;   // ticks of the cell before the segment
    int64_t total;    // ticks of the segment
    double peak;      // its largest logarithm
    uint32_t first, count;
    uint32_t wrap;  // requests before the first one whose time is below the time before it
    int32_t cell;
};

constexpr int SG_PAD = 64;
constexpr int SG_MAX_FIELDS = 8;
constexpr int SG_MODALITIES = SG_NAMESPACE::MODALITIES;
static_assert(SG_NAMESPACE::SCALAR_FIELDS <= SG_MAX_FIELDS, "every field of a request needs room");

// Consecutive requests of one cell whose fields are wanted.
struct SgRun {
    const uint32_t* times;
    int64_t origin_us;  // what to add to a time
    uint32_t first, count;
    int32_t cell;
};

// Which fields are drawn, and how many words a record has (`record_words`); with the ordinal where it is wanted or items
// follow.
struct SgFields {
    int64_t count, words;
    int32_t lane[SG_MAX_FIELDS];
    bool ordinal;
};

// Requests one by one; `turn` counts from 0 and is null where all are first ones.
struct SgLanes {
    int64_t count;
    const int32_t* cell;
    const uint32_t* ordinal;
    const int32_t* turn;
};

// Bins of equal length to which requests and the values of fields are added, by lane; a null has no sums. What comes
// behind the last one is added to one more. servegen_gpu/backends/native/library.py has the same fields in the same order.
struct SgLoads {
    int64_t offset_us;  // added to every time
    int64_t width_us, bins;
    int64_t* requests;
    int64_t* field[SG_MAX_FIELDS];
};

// Records by bin of time: `time >> shift` is the bin, `first` the one that records begin with.
struct SgBins {
    uint32_t* records;
    int64_t first;
    int shift;
};

// Rows of one bin.
struct SgRows {
    int64_t base_us;  // added to the low part of a time
    int64_t* arrival_us;
    int32_t *client, *field[SG_MAX_FIELDS];  // in the order of SgFields::lane
    int32_t* cell;                           // this and the next where records hold ordinals
    uint32_t* ordinal;
    // turns of conversations among them, in order: those of equal arrivals come after the records
    const SgTurnRow* due;
    int64_t due_count;
    uint32_t* due_place;  // where they come among the rows
};

// All columns. servegen_gpu/backends/native/library.py has the same fields in the same order.
struct SgOut {
    int64_t* arrival_us;
    int32_t *client, *inputs, *field[SG_MAX_FIELDS];
    uint32_t* ordinal;  // where ordinals are wanted
    int64_t* offsets[SG_MODALITIES];
    int64_t offset_us;  // added to every time
    // beside conversations: what else rows have, and the turns that are due, in order
    const SgSessions* sessions;
    int64_t* conversation;
    int32_t *turn, *new_tokens;
    const SgTurnRow* due;
    int64_t due_count;
};

// A column to digest. servegen_gpu/backends/native/library.py has the same fields in the same order.
struct SgDigested {
    const void* values;      // of 64 bits where `wide` is not 0, else of 32
    const int64_t* offsets;  // of lists, [rows + 1]; null where there are none
    int64_t wide;
    uint64_t words[5];  // a to e of servegen_gpu/digest.py
};

// Loops of one vector extension.
struct SgStrips {
    // logarithms of gaps into data; peak of each segment
    void (*gaps)(const SgJob& job, SgSegment* segments, int64_t count);
    // logarithms into sums of ticks, from 0 in each segment; total of each segment, never beyond 2**62
    void (*ticks)(const SgJob& job, SgSegment* segments, int64_t count);
    // sums into times; drops what is past the window's end, finds the wrap, counts requests per bin inside the span, and
    // behind the last bin those outside
    void (*times)(const SgJob& job, SgSegment* segments, int64_t count, int shift, uint32_t* histogram);
    // draws the fields and writes a record of every request to the place its bin has reached
    void (*records)(const SgJob& job, const SgFields& fields, const SgRun* runs, int64_t count, const SgBins& bins,
                    uint32_t* next);
    // draws the fields and adds them to their bins
    void (*loads)(const SgJob& job, const SgFields& fields, const SgRun* runs, int64_t count, const SgLoads& loads);
    // sorts `count` records from `begin` on by time, and what is due, and writes the rows of the records; what is due
    // only gets its places. Scratch: two words a row
    void (*columns)(const SgJob& job, const SgFields& fields, const SgBins& bins, int64_t begin, int64_t count,
                    const SgRows& rows, uint64_t* scratch);
    // values of the items of some requests, and their sum added to a column
    void (*items)(const SgJob& job, int64_t modality, int64_t requests, const int32_t* cell, const uint32_t* ordinal,
                  const int64_t* offsets, int32_t* values, int32_t* inputs);
    // clients [a, b) that send in a window, in order; returns how many
    int64_t (*cells)(const SgGrid& grid, int64_t window, int64_t a, int64_t b, SgCell* out);
    // numbers of turns of conversations
    void (*turn_counts)(const SgJob& job, const SgTurns& turns, const SgLanes& lanes, int32_t* counts);
    // words of the time from the turn before to each turn
    void (*turn_words)(const SgJob& job, const SgLanes& lanes, uint32_t* first, uint32_t* second);
    // that time from its words, of turns of the given models
    void (*turn_gaps)(const SgTurns& turns, int64_t count, const int32_t* model, const uint32_t* first,
                      const uint32_t* second, int64_t* gap_us);
    // fields of turns
    void (*turn_fields)(const SgJob& job, const SgTurns& turns, const SgFields& fields, const SgLanes& lanes,
                        int32_t* const* out);
    // ids of sessions; false if one has no room. `first_ids`: ids of ordinal 0 in the first layout, or -1
    bool (*session_ids)(const SgJob& job, const SgSessions& sessions, const int64_t* first_ids, const SgLanes& lanes,
                        int64_t* ids);
    // words sorted by `bits` of their upper half, keeping the order of equals: in the returned one of the two
    uint64_t* (*sort)(uint64_t* words, uint64_t* spare, int64_t count, int bits);
    // total and weighted sum of the digest of some columns
    void (*digest)(const SgDigested* columns, int64_t count, int64_t rows, uint64_t* out);
    // a function of the headers over arrays, by name, for tests; null if there is none
    void* (*function)(const char* name);
};
