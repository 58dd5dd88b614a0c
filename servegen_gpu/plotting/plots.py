"""The pictures of a trace by name: ``trace.plot.gaps()``.

>>> trace.plot.gaps()  # a figure of matplotlib
>>> sg.plots("trace.parquet", against="other.parquet").lengths("output_tokens").savefig("lengths.png")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.plotting import arrivals, clients, items, lengths, talks
from servegen_gpu.plotting.drawing import Drawing, Side, Sides
from servegen_gpu.plotting.seen import Pictured, pictured
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Source = Trace | Iterable[Trace] | str | os.PathLike[str]

GROUPS: dict[str, dict[str, Callable[[Sides], Drawing | None]]] = {
    "Arrivals": {"rate": arrivals.rate, "gaps": arrivals.gaps, "windows": arrivals.scatter},
    "Lengths": {
        **{name: partial(lengths.lengths, name=name) for name in lengths.NAMES},
        "pairs": lengths.pairs,
        "means": arrivals.means,
    },
    "Reasoning": {"reasoning": lengths.reasoning, "reason_pairs": lengths.reason_pairs},
    "Items": {"items": items.counts, "item_shares": items.shares},
    "Clients": {"skew": clients.skew, "clients": clients.spread, "top_clients": clients.top},
    "Conversations and caches": {"conversations": talks.talks, "reuse": talks.reuse},
}
"""All pictures by group and name."""
DRAWN = {name: draw for group in GROUPS.values() for name, draw in group.items()}


class Plots:
    """Pictures of a trace, or of one beside another. The trace is read once, when the first picture is drawn.

    Every method returns a ``matplotlib.figure.Figure``, and raises `OptionError` where the trace has nothing to draw,
    or matplotlib is missing.
    """

    def __init__(
        self, source: Source | Pictured, against: Source | Pictured | None = None, names: Sequence[str] = ()
    ) -> None:
        self._sources = [source] if against is None else [source, against]
        self._names = list(names)

    def __repr__(self) -> str:
        calls = [f"lengths({name!r})" if name in lengths.NAMES else f"{name}()" for name in DRAWN]
        return f"<Plots: {', '.join(calls)}>"

    @cached_property
    def sides(self) -> tuple[Side, ...]:
        """What is drawn."""
        kept = [source if isinstance(source, Pictured) else pictured(source) for source in self._sources]
        names = self._names or [data.seen.name for data in kept]
        if len(set(names)) < len(names):
            names = [f"{name} ({which})" for name, which in zip(names, ("first", "second"), strict=False)]
        return tuple(map(Side, names, kept))

    def drawing(self, name: str) -> Drawing | None:
        """A picture with its words, by its name in `DRAWN`; None where there is nothing to draw."""
        if name not in DRAWN:
            raise unknown("a picture", name, DRAWN)
        return DRAWN[name](self.sides)

    def drawings(self) -> Iterator[tuple[str, list[Drawing]]]:
        """All pictures that there are, by group."""
        for group, names in GROUPS.items():
            found = [drawing for name in names if (drawing := self.drawing(name)) is not None]
            if found:
                yield group, found

    def _figure(self, name: str, needs: str) -> Figure:
        drawing = self.drawing(name)
        if drawing is None:
            data = self.sides[0].data
            got = f"{data.rows:,} requests with columns {', '.join(data.columns) or 'none'}"
            raise OptionError(needs, got, "draw something else")
        return drawing.figure

    def gaps(self) -> Figure:
        """Inter-arrival times, with exponential, Gamma and Weibull densities (the paper's Fig. 1)."""
        return self._figure("gaps", "a trace with two different inter-arrival times")

    def rate(self) -> Figure:
        """Requests per second and the CV of inter-arrival times over time (Fig. 2)."""
        return self._figure("rate", "a trace of more than two seconds")

    def windows(self) -> Figure:
        """Rates and mean lengths of windows of three seconds (Fig. 19)."""
        return self._figure("windows", "a trace of 30 seconds with input or output tokens")

    def lengths(self, column: str = "input_tokens") -> Figure:
        """Distribution and tail of a column of lengths, or of ``"answer_tokens"``, with a fitted family (Fig. 3)."""
        if column not in lengths.NAMES:
            raise unknown("a column", column, lengths.NAMES)
        return self._figure(column, f"a trace with {column} above 0")

    def pairs(self) -> Figure:
        """Inputs against outputs (Fig. 4)."""
        return self._figure("pairs", "a trace with input_tokens and output_tokens")

    def means(self) -> Figure:
        """Mean lengths over time."""
        return self._figure("means", "a trace of more than two seconds with input or output tokens")

    def reasoning(self) -> Figure:
        """Share of reasoning in the output (Fig. 14)."""
        return self._figure("reasoning", "a trace with reason_tokens")

    def reason_pairs(self) -> Figure:
        """Reasoning against answers."""
        return self._figure("reason_pairs", "a trace with reason_tokens")

    def items(self) -> Figure:
        """Numbers and sizes of images, audio and video (Fig. 7 and 8)."""
        return self._figure("items", "a trace with items, as image_tokens")

    def item_shares(self) -> Figure:
        """How much of the inputs is items (Fig. 9), and their tokens over time."""
        return self._figure("item_shares", "a trace with items, as image_tokens")

    def skew(self) -> Figure:
        """Share of the requests that the largest clients send."""
        return self._figure("skew", "a trace with two clients")

    def clients(self) -> Figure:
        """How clients differ: rate, CV and mean lengths, weighted by requests (Fig. 5 and 11)."""
        return self._figure("clients", "a trace with two clients")

    def top_clients(self) -> Figure:
        """The largest clients alone, over time (Fig. 6 and 12)."""
        return self._figure("top_clients", "a trace with clients, long enough for several bins")

    def conversations(self) -> Figure:
        """Turns of conversations and times between them (Fig. 15)."""
        return self._figure("conversations", "a trace with conversations of several turns")

    def reuse(self) -> Figure:
        """Share of blocks that a cache finds again, by its size."""
        return self._figure("reuse", "a trace with hash_ids; trace.with_hash_ids() adds them")


def plots(source: Source, against: Source | None = None) -> Plots:
    """Pictures of a trace, or of one beside another.

    Parameters
    ----------
    source, against : Trace, its slabs in order of time, `Workload`, or path
        Read once, slab by slab, in memory that does not grow with it.

    Examples
    --------
    >>> sg.plots("trace.parquet").rate()
    """
    return Plots(source, against)
