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

REJECTED = 0.62  # one of the 32 lanes rejects: 1 - (1 - 0.03)**32
IN_RUNS = 0.05  # halvings until the run of a request is found: one tile of 256 in twenty has a bound of runs
IN_BINS = 2.6  # halvings until the slowest lane has its bin
BEYOND = 0.05  # of a renewal's requests lie beyond its window's end
LANES = 5  # fields that loops of `record_at` are unrolled for
TRIES = 1.25  # more tries until all 128 requests of a task have a gap: most tasks take one
PLACES = 1.04  # places of tasks a request: the last task of a cell, and what a renewal draws beyond its window
BUCKET, THREADS, SLOTS = 1700, 256, 2048  # items of a bucket on average, threads of its block, parts of its time

SCATTERED = {
    "load": r"^(guide_at|find_bin|halve_bins|value_of): |^record_at: .*tables.values|^row_at: .*record\[",
    "store": r"^scatter_task: job.items_out",
    "atomic": r"^(time|scatter)_task: .*atomicAdd",
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
    """What a slab runs, request by request; what runs once a cell or once a tile is too little to count."""
    columns = 12 + 4 * w.fields
    if w.tasks:
        each = PLACES / 4  # a lane of a warp has four requests
        return [
            Step("draw", each, 8 * PLACES),
            *([] if w.renewal else [Step("sums", each, 16 * PLACES)]),
            Step("reach", PLACES / 128),
            Step("time", each, 12 * PLACES),
            Step("scatter", each, 4 * PLACES + 32),  # an item is half a sector
            Step("arrange", THREADS / BUCKET, 16 + columns),
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
        Rule(r"^ties_of: for \(int j", 0.1),
        Rule(r"^mix_words: .*normal_of_word[^\n]*\nrecord_at: ", w.fields / LANES),
        Rule(r"^mix_words: .*(z = |words\[f\] = word_of_normal)[^\n]*\nrecord_at: ", (w.fields - 1) / (LANES - 1)),
        Rule(r"^(record|row)_at: if \(f < fields\)", w.fields / LANES),
        Rule(r"^record_at: if \(f == job.ratio_field\)", ratio / (LANES - 2)),
        Rule(r"^(record|row)_at: .*row_ordinal|^row_at: job.row_cell", 0),
    ]


def rules_of_tasks(w: Workload) -> list[Rule]:
    """Of tasks.h."""
    passes, slots = BUCKET / THREADS, SLOTS / THREADS
    counted, arrange = 0.0 if w.renewal else 1.0, "^arrange_bucket: "
    return [
        Rule(r"^sg_(draw|sums|time|scatter): .*SG_FOR_TASKS", 1, loop=True),
        Rule(r"^normal_rows: ", 0, loop=True),  # once for dozens of tasks
        Rule(r"^normal_rows: ", 0),
        # draw and reach
        Rule(r"^draw_task: ", TRIES * w.gamma, loop=True),
        Rule(r"^draw_task: (const uint64_t of|peak = |if \(lane_of|TwoSums|.*at\[r / 2\])", counted),
        Rule(r"^draw_task: (ticks\[r\] = |if \(first == 0|write_sums|int64_t ticks)", 1 - counted),
        Rule(r"^reach_at: ", 0, loop=True),
        # scatter
        Rule(r"^scatter_task: mix_words", w.copula),
        Rule(r"^mix_words: .*normal_of_word[^\n]*\nscatter_task: ", w.fields / 3),
        Rule(r"^mix_words: .*(z = |words\[f\] = word_of_normal|row = )[^\n]*\nscatter_task: ", (w.fields - 1) / 2),
        Rule(r"^scatter_task: if \(f < fields\) value", w.fields / 3),
        Rule(r"^scatter_task: if \(job.ratio_field\)", w.fields > 2),
        # arrange: loops are unrolled, and the rest of one is a loop of its own
        Rule(rf"{arrange}for \(int s = tid", slots / 4, loop=True),
        Rule(rf"{arrange}(for \(int s = 0|.* here|before \+= here|next\[tid)", 0, loop=True),  # 8 at a time: no loop
        Rule(rf"{arrange}for \(int w", 0, loop=True, least=20),
        Rule(rf"{arrange}for \(int w", 1, loop=True),
        Rule(rf"{arrange}(for \(int i = tid|.*atomicAdd|const uint4 item)", (passes - 1.5) / 4, loop=True, least=16),
        Rule(rf"{arrange}(for \(int i = tid|.*atomicAdd|const uint4 item)", 1.5, loop=True),
        Rule(rf"{arrange}for \(uint32_t k", 0.5, loop=True),  # four more of the slot's items
        Rule(arrange, passes, loop=True, least=40),
    ]
