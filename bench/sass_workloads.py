"""What workloads make of the kernels: the steps of a slab, and how often a warp comes where. Data of sass_budget.py.

Change a kernel, and change its line here: kernels, threads and bytes per request in `steps_of`, choices and loops in
`rules_of`. The budget tells which loops have no rule, and which rules nothing comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

from sass_flow import Rule


@dataclass(frozen=True)
class Workload:
    """What decides which way kernels go.

    Attributes
    ----------
    name : str
    renewal : bool
        Or exact counts.
    gamma : float
        Share of requests whose gaps are Gamma, the others being Weibull; nearly all of a warp are alike.
    fields : int
        Drawn once per request; the last is a ratio where there are three.
    copula : bool
        Or independent fields.
    tasks : bool
        Whether cells are large enough for the kernels of tasks.h.
    """

    name: str
    renewal: bool
    gamma: float
    fields: int
    copula: bool
    tasks: bool = True


# Shares and searches as in the presets with all their clients, weighted by rates.
WORKLOADS = (
    Workload("language exact", renewal=False, gamma=1.0, fields=2, copula=False),
    Workload("language renewal", renewal=True, gamma=1.0, fields=2, copula=False),
    Workload("m-small default", renewal=True, gamma=0.40, fields=2, copula=True),
    Workload("deepseek-r1 default", renewal=True, gamma=0.68, fields=3, copula=True),
    Workload("deepseek-r1 default, small cells", renewal=True, gamma=0.68, fields=3, copula=True, tasks=False),
    Workload("language exact, small cells", renewal=False, gamma=1.0, fields=2, copula=False, tasks=False),
)

REJECTED = 0.65  # one of the 32 lanes rejects: 1 - (1 - 0.035)**32
IN_RUNS = 0.05  # halvings until the run of a request is found: one tile of 256 in twenty has a bound of runs
IN_BINS = 2.6  # halvings until the slowest lane has its bin
BEYOND = 0.05  # of a renewal's requests lie beyond its window's end
LANES = 5  # fields that loops of `record_at` are unrolled for

# Of an hour of 25,913 clients and a billion requests, in slabs of a window.
PER_LANE, POOL, PARTS, MOST_FIELDS = 8, 2, 2, 3  # as in kernels/tasks.h: TASK is 32 PER_LANE, or PARTS of AT_ONCE
PLACES_EXACT, PLACES_RENEWAL = 1.036, 1.06  # places a request: last tasks of cells, and renewals beyond their windows
RETRIES, TRIES = 1.02, 1.49  # rejected gaps of a pool fill a warp so often; tries until the last of its lanes has one
BOUNDED = 0.04  # of a renewal's tasks have a gap of a 256th of the window
SEARCHES, IN_SEARCH = 1.6, 3.7  # of a part and field: requests of a lane with a search, halvings of the slowest
ITEMS, THREADS, SLOTS = 2276, 512, 2048  # items of a bucket, threads of its block, parts of its time
FOURS = 1.0  # fours of items in the fullest slot of 32: on average it has 4.8

SCATTERED = {
    "load": r"^(guide_at|find_bin|halve_bins|value_of|searched): |^record_at: .*tables.values|^row_at: .*record\["
    r"|^scatter_part: pair\[r\] = ",
    "store": r"^scatter_part: job.items_out",
    "atomic": r"^(time_task|scatter_part): .*atomicAdd",
    "shared": r"^(quantile|mass|at_row): |^arrange_bucket: .*(atomicAdd|items\[|next\[slot)",
}
"""By kind, accesses whose lanes fall on many lines of the cache, or on any bank of shared memory."""


@dataclass(frozen=True)
class Step:
    """A kernel, or a library's part of a slab.

    Attributes
    ----------
    kernel : str
    threads : float
        Per request, 0.25 where a thread has four; 0 of what is not our code, of which nothing is counted.
    bytes : float
        Of memory, read and written, per request.
    known_ms : float
        Per billion requests, where that is better known than predicted.
    """

    kernel: str
    threads: float = 1.0
    bytes: float = 0.0
    known_ms: float = 0.0


def steps_of(w: Workload) -> list[Step]:
    """What a slab runs, request by request; what runs once a cell, a tile or a task is too little to count."""
    columns = 12 + 4 * w.fields
    if w.tasks:
        places = PLACES_RENEWAL if w.renewal else PLACES_EXACT
        each = places / PER_LANE
        return [
            Step("draw", each / POOL, 8 * places),
            *([] if w.renewal else [Step("sums", each, 16 * places)]),
            Step("time", each, 12 * places),
            Step("scatter", each, 4 * places + 32),  # an item is half a sector
            Step("arrange", THREADS / ITEMS, 16 + columns),
            Step("once a task or a cell, waits", threads=0, known_ms=6 if w.renewal else 2.5),  # measured
        ]
    drawn = [Step("gap", bytes=8), Step("cumsum", threads=0, bytes=16)]
    renewals = [Step("cross", bytes=8), Step("later rounds", threads=0, known_ms=20)]
    return [
        *drawn,
        *(renewals if w.renewal else [Step("tick", bytes=16)]),
        Step("word", bytes=16),
        Step("record", bytes=8 + 16),
        Step("sort", threads=0, known_ms=37),  # CUB, 30 bits in four passes: 28 to 46
        Step("row", bytes=8 + 32 + columns),  # a gather fetches sectors of 32 bytes
    ]


FIRST_TRY, LATER_TRY = "(log_gap|draw_task): (const )?LogGap ", "(log_gap: gap|draw_task: try_log_gap)"


def rules_of(w: Workload) -> list[Rule]:
    """How often a warp comes to some lines of source; what no rule names, once."""
    return [*rules_of_requests(w), *rules_of_tasks(w)]


def rules_of_requests(w: Workload) -> list[Rule]:
    """Of slab.h and what all kernels share."""
    ratio = w.fields > 2
    return [
        Rule(r"^run_of: ", IN_RUNS, loop=True),
        Rule(r"^halve_bins: (.*\n)*searched: ", IN_SEARCH, loop=True),
        Rule(r"^halve_bins: ", IN_BINS, loop=True),
        # gap
        Rule(r"^gap_at: job.ticks\[request\] = job.first_ticks", 0),
        Rule(r"^log_gap: (for |gap = )", REJECTED * w.gamma, loop=True),
        Rule(rf"^normal_of_word: [^\n]*\ntry_log_gap: [^\n]*\n{FIRST_TRY}", w.gamma),
        Rule(rf"case GAMMA[^\n]*\n[^\n]*\n{FIRST_TRY}", w.gamma),
        # code that both have is merged, with the lines of one
        Rule(rf"^log_(weibull|lognormal): ([^\n]*\n){{3}}{FIRST_TRY}", 1 - w.gamma),
        Rule(rf"^log_(weibull|lognormal): ([^\n]*\n){{3}}{LATER_TRY}", 0),
        Rule(r"^log_lognormal: ", 0),
        Rule(r"^gap_at: job.ticks\[request\] = ticks_at", w.renewal),
        Rule(r"^gap_at: (job.ticks\[request\] = bits_of|return \{at.run, ordered)", not w.renewal),
        Rule(r"^sg_gap: if \(lane_of", not w.renewal),
        Rule(r"^sg_gap: if \(gap.run >= 0\)|^sg_cross: atomicMin|^raise: .*atomic", 0),
        Rule(r"^crosses: static_cast|^sg_cross: (atomicMin|\})", BEYOND),
        # word
        Rule(r"^operational: return .on_circle", not w.renewal),
        Rule(r"^operational: return from_start", 0),
        Rule(r"^clock_at: (const|return .*clock_first)", 0),
        # record and row
        Rule(r"^record_at: if \(fields > 4\)", w.fields > 4),
        Rule(r"^record_at: if \(mixing\)", w.copula),
        Rule(r"^ties_of: ", w.fields - 1, loop=True),
        Rule(r"^ties_of: for \(int j", 0, loop=True),  # unrolled by 16 and by 4: a row is shorter
        Rule(r"^ties_of: for \(int j.*\nmix_words: ", 0.1),
        Rule(r"^mix_words: .*normal_of_word[^\n]*\nmix_words: ", w.fields / LANES),
        Rule(r"^mix_words: .*(z = |words\[f\] = word_of_normal)[^\n]*\nmix_words: ", (w.fields - 1) / (LANES - 1)),
        Rule(r"^(record|row)_at: if \(f < fields\)", w.fields / LANES),
        Rule(r"^record_at: if \(f == job.ratio_field\)", ratio / (LANES - 2)),
        Rule(r"^(record|row)_at: .*row_ordinal|^row_at: job.row_cell", 0),
    ]


def rules_of_tasks(w: Workload) -> list[Rule]:
    """Of tasks.h."""
    counted, bounded = 0.0 if w.renewal else 1.0, BOUNDED if w.renewal else 0.0
    return [
        Rule(r"^sg_(draw|sums|time|scatter): .*SG_FOR_TASKS", 1, loop=True),
        Rule(r"^normal_rows: ", 0, loop=True),  # once for dozens of tasks
        Rule(r"^normal_rows: ", 0),
        # draw: first tries, retries, and sums of a pool
        Rule(r"^draw_pool: (SG_DRAWS|.* law = |switch|const Task task = job.task\[first \+ p)", POOL, loop=True),
        Rule(r"^first_tries: ", PER_LANE, loop=True),
        Rule(r"^try_log_gamma: (.*\n)*first_tries: ", w.gamma, share=0.5),
        Rule(r"^log_weibull: (.*\n)*first_tries: ", 1 - w.gamma, share=0.5),
        Rule(r"^log_lognormal: (.*\n)*first_tries: ", 0, share=0.35),
        Rule(r"^draw_pool: (.* (place|law|words|task) = |tried = )", RETRIES * w.gamma, loop=True),
        Rule(r"^draw_pool: (const Words words|tried = )", TRIES, loop=True),
        Rule(r"^log_(weibull|lognormal): (.*\n)*draw_pool: tried", 0),
        Rule(r"^draw_pool: (place_gaps|SG_UNROLL)", POOL, loop=True),
        Rule(r"^place_gaps: (.*(peak| of = |at\[r / 2\])|TwoSums)", counted),
        Rule(r"^place_gaps: (.*ticks\[|int64_t ticks|write_sums|const double)", 1 - counted),
        Rule(r"^write_sums: sum_ticks<true>", bounded),
        Rule(r"^write_sums: sum_ticks<false>", 1 - bounded),
        # scatter
        Rule(r"^scatter_part: ", PARTS, loop=True),
        Rule(r"^ties_of: for \(int j.*\nfields_of: ", 0.25 * w.copula),  # unrolled as above
        Rule(r"^scatter_part: (if \(of.ties|.*mix_words)", w.copula),
        Rule(r"^mix_words: .*normal_of_word[^\n]*\nscatter_part: ", w.fields / MOST_FIELDS),
        Rule(
            r"^mix_words: .*(z = |words\[f\] = word_of_normal|row = )[^\n]*\nscatter_part: ",
            (w.fields - 1) / (MOST_FIELDS - 1),
        ),
        Rule(rf"^scatter_part: ({VALUE}|{SEARCH})", w.fields / MOST_FIELDS),
        Rule(rf"^scatter_part: {SEARCH}", SEARCHES, loop=True),
        Rule(r"^scatter_part: .*reason_tokens", w.fields > 2),
        *rules_of_buckets(),
    ]


VALUE = r"(const int32_t table|(uint32_t )?more|pair\[r\]|value\[r\]|SG_UNROLL.*(f < TURN_F|words\[r\]\[f\] = value))"
SEARCH = r"(while|const int k|more &=|word = |low = |.*searched|SG_UNROLL.*r == k)"


def rules_of_buckets() -> list[Rule]:
    """Of a block that arranges a bucket. Loops are unrolled by 16, 8 and 4; the rest of one is a loop of its own."""
    items = "^arrange_bucket: (for .int i = tid|.*atomicAdd|const uint4 item)"
    slots = "^arrange_bucket: (for .int s = 0|.* here|before .= here|own)"
    warps = "^arrange_bucket: for .int w"
    fours, rest = of_fours(ITEMS / THREADS)
    return [
        Rule(r"^arrange_bucket: for .int s = tid", SLOTS / THREADS / 4, loop=True),
        # each thread has four slots
        Rule(slots, 0, loop=True, least=20),
        Rule(slots, 1, loop=True, least=8),
        Rule(slots, 0, loop=True),
        Rule(slots, 0, least=12, most=60),
        # sums of 0 to 15 warps
        Rule(warps, 0, loop=True, least=20),
        Rule(warps, 0.5, loop=True, least=8),
        Rule(warps, 1.5, loop=True),
        Rule(warps, 0.5, least=12, most=20),
        Rule(items, fours, loop=True, least=16),
        Rule(items, rest, loop=True),
        Rule(r"^arrange_bucket: for .uint32_t k", FOURS, loop=True),
        Rule(r"^arrange_bucket: ", ITEMS / THREADS, loop=True, least=40),
    ]


def of_fours(passes: float) -> tuple[float, float]:
    """Passes of a loop that is unrolled by four, and of its rest, where warps make one pass more or less."""
    few = int(passes)
    more = passes - few
    fours = few // 4 * (1 - more) + (few + 1) // 4 * more
    return fours, passes - 4 * fours
