// The loops of the CPU driver over strips of lanes, compiled once for every vector extension, with SG_NAMESPACE naming it.
#include "shim.h"
#include "strip_cells.h"
#include "strip_digest.h"
#include "strip_fields.h"
#include "strip_gaps.h"
#include "strip_items.h"
#include "strip_sort.h"
#include "strip_times.h"
#include "strip_turns.h"

namespace SG_NAMESPACE {

extern const SgStrips strips = {gaps,        ticks,      times,     records,     loads,       columns,    items,  cells,
                                 turn_counts, turn_words, turn_gaps, turn_fields, session_ids, sort_words, digest, function};

}  // namespace SG_NAMESPACE
