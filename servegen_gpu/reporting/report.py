"""The report of a trace, a pool or a study as one page: `report`.

>>> sg.report("trace.parquet", "report.html")
>>> sg.report(pool, "report.html", rate=100, duration="1h", against="log.csv")
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Unpack

from servegen_gpu.clients.named import pool_or_trace
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.comparing.compare import compare
from servegen_gpu.comparing.figures import Figures, figures_of_seen
from servegen_gpu.errors import OptionError
from servegen_gpu.formats.atomic import new_file
from servegen_gpu.formats.own import refuse_foreign
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.pipeline import Options, Workload, stream
from servegen_gpu.plotting.drawing import Side, Sides, time_text
from servegen_gpu.plotting.plots import Plots
from servegen_gpu.plotting.seen import Pictured, pictured
from servegen_gpu.plotting.style import require_matplotlib
from servegen_gpu.reporting.against import comparison_section
from servegen_gpu.reporting.page import Section, page
from servegen_gpu.reporting.parts import paragraph
from servegen_gpu.reporting.traces import notes, trace_sections
from servegen_gpu.studies.file import is_study, read_study
from servegen_gpu.studies.provisioned import Provision
from servegen_gpu.studies.sensitivity import Sensitivity
from servegen_gpu.studies.study import Study
from servegen_gpu.trace import Trace

STUDIES: dict[type[Study | Sensitivity | Provision], str] = {
    Study: "montecarlo",
    Sensitivity: "sensitivity",
    Provision: "provision",
}
Source = Trace | Iterable[Trace] | str | os.PathLike[str] | ClientPool | PackedWorkload


def report(
    source: Source | Study | Sensitivity | Provision,
    path: str | os.PathLike[str],
    *,
    against: Source | None = None,
    overwrite: bool = False,
    **sampling: Unpack[Options],
) -> Path:
    """Write a page with numbers and pictures of a trace or of a study, complete in itself.

    The trace is read once, slab by slab, in memory that does not grow with it. With `against`, pictures show both, and
    a table says how alike they are.

    Parameters
    ----------
    source : Trace, slabs, path, ClientPool, name of a workload, PackedWorkload, Study, Sensitivity or Provision
        A path is that of a trace, whoever wrote it, or of a study. Pools are sampled. Slabs are in order of time; a
        `Workload` is a pool's.
    path : path
        Of the page, which appears complete or not at all.
    against : the same, optional
        A pool is sampled for as long as the source lasts, with counts that are random unless `counts` says otherwise.
    overwrite : bool
        Replace a file of others, too; an earlier page is replaced in any case.
    **sampling
        Of pools: `rate`, `duration`, `seed` and what else `servegen_gpu.stream` takes.

    Returns
    -------
    Path

    Raises
    ------
    OptionError
        If matplotlib is missing, a source is none of these, or a study is to be held against something.
    OutputError
        If the page cannot be written.

    Examples
    --------
    >>> sg.report("log.csv", "report.html", against=sg.fit("log.csv"))
    """
    if Path(path).suffix.lower() != ".html":
        raise OptionError("a path that ends in .html", repr(os.fspath(path)), "change path")
    require_matplotlib()
    source, against = pool_or_trace(source), pool_or_trace(against)
    study = type(source) in STUDIES or is_study(source)
    if study and against is not None:
        got = "a study and another one"
        raise OptionError("a trace or a pool to hold against another", got, "leave against out for a study")
    if sampling and not any(isinstance(each, ClientPool | PackedWorkload) for each in (source, against)):
        got = f"{', '.join(sampling)} with {type(source).__name__}"
        raise OptionError("a pool with arguments of sampling", got, "leave them out, or give a pool")
    refuse_foreign(Path(path), overwrite)
    with new_file(Path(path)) as sink:  # before hours of reading: a page that cannot be written is refused now
        sink.write((_study_page(source) if study else _trace_page(source, against, sampling)).encode())
    return Path(path)


def _study_page(source: Any) -> str:
    """The page of a study, or of its file."""
    from servegen_gpu.reporting.studies import study_sections

    if type(source) in STUDIES:
        return page(repr(source)[1:-1], study_sections(STUDIES[type(source)], source.settings, source.table))
    kind = read_study(source)[0]
    study = next(reader for reader, name in STUDIES.items() if name == kind).read(source)  # looks at settings, too
    return page(f"{Path(source).name}: {kind}", study_sections(kind, study.settings, study.table))


def _trace_page(source: Any, against: Source | None, sampling: Options) -> str:
    first, said = _kept(source, sampling)
    names = [_name(source, first)]
    kept = [first]
    if against is not None:
        lasting: Options = {"counts": "renewal", "empty": "skip", **sampling}
        if first.seen.seconds:
            lasting["duration"] = first.seen.seconds
        other, more = _kept(against, lasting)
        kept, said = [first, other], [*said, *more]
        names.append(_name(against, other))
        if names[0] == names[1]:
            names = [f"{names[0]} ({which})" for which in ("reference", "other")]
    plots = Plots(first, None if against is None else kept[1], names=names)
    figures = [figures_of_seen(data.seen) if data.rows else None for data in kept]
    sections = list(trace_sections(plots, figures))
    if against is not None:
        sections.insert(1, _compared(plots.sides, figures))
    sections.append(notes(plots.sides, figures, said))
    lead = " · ".join(_lead(side) for side in plots.sides)
    return page(" and ".join(names), sections, lead)


def _kept(source: Source, sampling: Options) -> tuple[Pictured, list[str]]:
    """What is kept of a source, and notes on how it was sampled."""
    if isinstance(source, ClientPool | PackedWorkload):
        source = stream(source, **sampling)
    said = list(source.notes) if isinstance(source, Workload) else []
    return pictured(source), said


def _name(source: Source, data: Pictured) -> str:
    """What the page calls a source: its file's name, or that of its workload."""
    if isinstance(source, str | os.PathLike):
        return Path(source).name or str(source)
    return getattr(source, "name", "") or data.seen.name


def _lead(side: Side) -> str:
    seen = side.data.seen
    return f"{side.name}: {seen.rows:,} requests in {time_text(seen.seconds)}" if seen.rows else f"{side.name}: empty"


def _compared(sides: Sides, figures: list[Figures | None]) -> Section:
    """The comparison, or why there is none."""
    log, other = figures
    if log is None or other is None or log.seen.rows < 2 or not log.seen.end_us:
        return Section("Comparison", paragraph("Nothing can be compared: that takes two requests at different times."))
    return comparison_section(compare(log, other), (sides[0].name, sides[1].name))
