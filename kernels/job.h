// What the CPU driver (native.cpp) and the loops of one vector extension (strips.cpp) tell each other. Plain data.
//
// Notation as in law/position.py. Axes: cells (clients inside windows, as servegen_gpu/plan.py lists them), segments
// (consecutive requests of one cell), requests.
#pragma once

#include <stdint.h>

extern "C" {

// Everything that sampling needs of a packed workload and of its cells. servegen_gpu/backends/native.py has the same
// fields in the same order.
struct SgJob {
    uint64_t key0, key1;
    // cells
    int64_t cells;
    const uint64_t *client, *window;
    const int32_t* client_column;
    const uint8_t *is_gamma, *rule;
    const double *inverse_shape, *d, *c, *log_d, *boost;
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
    const double* mixing;  // [scalar fields, scalar fields]
    // the slab: times count from its begin, and requests outside [0, span_us) are dropped
    int64_t span_us;
    int64_t threads;
};

}  // extern "C"

enum SgRule : uint8_t { SG_EXACT = 0, SG_RENEWAL = 1, SG_SERVEGEN = 2 };
enum SgDependence : int64_t { SG_INDEPENDENT = 0, SG_COMONOTONE = 1, SG_COPULA = 2 };

// Consecutive requests of one cell. `data` holds, one after another: logarithms of gaps, sums of ticks since the
// segment's begin, and times. Loops read up to SG_PAD numbers beyond the segment and write none.
struct SgSegment {
    int64_t* data;
    int64_t before;  // ticks of the cell before the segment
    int64_t total;   // ticks of the segment
    double peak;     // its largest logarithm
    uint32_t first, count;
    int32_t cell;
};

constexpr int SG_PAD = 64;
constexpr int64_t SG_OUTSIDE = -1;  // the time of a request that is dropped
constexpr int SG_MAX_FIELDS = 8;

// A request on its way through the sort: words of `head` 2 (low part of the time, cell), then fields, then the ordinal
// where items follow.
struct SgBins {
    uint32_t* records;
    int64_t words;  // of a record
    int shift;      // time >> shift is the bin
    bool ordinal;
};

// The columns of sorted requests.
struct SgOut {
    int64_t* arrival_us;
    int32_t* client;  // or null
    int32_t* cell;    // or null
    uint32_t* ordinal;
    int32_t* field[SG_MAX_FIELDS];
    int64_t offset_us;  // added to every time
};

// Loops of one vector extension.
struct SgStrips {
    // logarithms of gaps into data; peak of each segment
    void (*gaps)(const SgJob& job, SgSegment* segments, int64_t count);
    // logarithms into sums of ticks, from 0 in each segment; total of each segment, never beyond 2**62
    void (*ticks)(const SgJob& job, SgSegment* segments, int64_t count);
    // sums into times; counts requests per bin
    void (*times)(const SgJob& job, const SgSegment* segments, int64_t count, int shift, uint32_t* histogram);
    // draws the fields and writes a record of every request that is inside to the place its bin has reached
    void (*records)(const SgJob& job, const SgSegment* segments, int64_t count, const SgBins& bins, uint32_t* next);
    // sorts the records of one bin by time and writes their columns from row `row` on; scratch: 2 * count words
    void (*columns)(const SgJob& job, const SgBins& bins, int64_t bin, int64_t begin, int64_t count, const SgOut& out,
                    int64_t row, uint64_t* scratch);
    // values of the items of requests from a to b, and their sum added to a column
    void (*items)(const SgJob& job, int64_t purpose, int64_t field, int64_t a, int64_t b, const int32_t* cell,
                  const uint32_t* ordinal, const int64_t* offsets, int32_t* values, int32_t* inputs);
    // a function of the headers over arrays, by name, for tests; null if there is none
    void* (*function)(const char* name);
};
