"""The result of a comparison: rows with a verdict each, as text, frame, JSON and plot."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.options import MAX_TIME_S

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = ("inside", "near", "outside", "-")
NEAR_FACTOR = 1.25
NEAR = {"share": 0.02, "ks": 0.01, "energy": 0.005}
"""How far beyond its interval, or floor, a figure is near, by kind; those of kind ``scale`` by `NEAR_FACTOR`."""
MEANING = {
    "inside": "where the log itself would be by chance: in its interval, or no farther than its floor",
    "near": f"beyond by a factor of {NEAR_FACTOR:g} at most; shares and correlations by {NEAR['share']:g}, "
    f"KS by {NEAR['ks']:g}, energies by {NEAR['energy']:g}",
    "outside": "farther away",
    "-": "nothing can be said, as explained below",
}


@dataclass(frozen=True)
class Row:
    """One figure of both sides.

    Attributes
    ----------
    name, label, unit, group, kind : str
        As `servegen_gpu.comparing.figures.ABOUT` has them; kinds ``ks`` and ``energy`` are distances from the log.
    log : float or None
        The log's figure; None for distances.
    other : float or None
        Of the other side: the mean over its traces, the median for peaks.
    spread : tuple of float or None
        5 and 95 % points over its traces, if there are several.
    floor : tuple of float or None
        Interval of the log's figure, wider by what is random on the other side; (0, floor) for distances.
    halves : tuple of float or None
        Of the log's first and second half.
    verdict : str
        Of `VERDICTS`.
    why : str
        Why there is none.
    naive : float or None
        Of the naive baseline.
    naive_verdict : str
        Empty without a baseline.
    """

    name: str
    label: str
    unit: str
    group: str
    kind: str
    log: float | None
    other: float | None
    spread: tuple[float, float] | None
    floor: tuple[float, float] | None
    halves: tuple[float, float] | None
    verdict: str
    why: str = ""
    naive: float | None = None
    naive_verdict: str = ""


@dataclass(frozen=True)
class Side:
    """What was compared: a name, how many traces, and requests and seconds of one, on average."""

    name: str
    traces: int
    requests: float
    seconds: float
    tick_us: int


@dataclass(frozen=True, repr=False)
class Comparison:
    """How alike a log and other traces are.

    Attributes
    ----------
    rows : tuple of Row
    log, other : Side
    naive : Side or None
    dispersion_error : mapping of str to float
        Mean ``|ln ratio|`` of the dispersion of requests over the windows that the log supports: ``other``, ``halves``
        (of the log, against each other) and ``naive``.
    block_s : int
        Length of the blocks of the bootstrap.
    notes : tuple of str
    curves : mapping
        What the plot draws besides rows: distribution functions, and requests over time.
    """

    rows: tuple[Row, ...]
    log: Side
    other: Side
    naive: Side | None
    dispersion_error: Mapping[str, float]
    block_s: int
    notes: tuple[str, ...]
    curves: Mapping[str, Any]

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {verdict}" for verdict, n in self.verdicts().items() if n and verdict != "-")
        return f"<Comparison of {self.log.name} with {self.other.name}: {counts}>"

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise unknown("a figure", name, [row.name for row in self.rows])

    def verdicts(self, naive: bool = False) -> dict[str, int]:
        """How many figures have each verdict."""
        given = [row.naive_verdict if naive else row.verdict for row in self.rows]
        return {verdict: given.count(verdict) for verdict in VERDICTS}

    def table(self) -> str:
        """Rows as a table for the terminal, with what the words mean."""
        from servegen_gpu.comparing.table import table

        return table(self)

    def _repr_html_(self) -> str:
        from servegen_gpu.reporting.notebook import comparison_html

        return comparison_html(self)

    def __str__(self) -> str:
        return self.table()

    def to_pandas(self) -> pd.DataFrame:
        """A frame, a row for each figure, indexed by name; pairs are two columns."""
        import pandas as pd

        flat = []
        for row in self.rows:
            plain = asdict(row)
            for name in ("spread", "floor", "halves"):
                low, high = plain.pop(name) or (math.nan, math.nan)
                ends = ("first_half", "second_half") if name == "halves" else (f"{name}_low", f"{name}_high")
                plain |= {ends[0]: low, ends[1]: high}
            flat.append(plain)
        frame = pd.DataFrame(flat).set_index("name")
        return frame.astype({name: float for name in ("log", "other", "naive")})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: what has no value is None."""
        found: dict[str, Any] = _plain(asdict(self))
        return found

    def to_json(self, indent: int | None = None) -> str:
        """The same as text; `from_json` reads it."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Comparison:
        """A comparison that `to_json` wrote.

        Raises
        ------
        OptionError
            If it is something else.
        """
        try:
            d = json.loads(text)
            rows: list[dict[str, Any]] = [dict(row) for row in d["rows"]]
            for row in rows:
                row |= {name: tuple(row[name]) for name in ("spread", "floor", "halves") if row[name] is not None}
            naive = d["naive"]
            found = cls(
                rows=tuple(Row(**row) for row in rows),
                log=Side(**d["log"]),
                other=Side(**d["other"]),
                naive=None if naive is None else Side(**naive),
                dispersion_error=d["dispersion_error"],
                block_s=int(d["block_s"]),
                notes=tuple(d["notes"]),
                curves=d["curves"],
            )
            if not 0 <= found.block_s <= MAX_TIME_S:
                raise ValueError(f"blocks of {found.block_s} s")
            str(found), found.svg()  # what can be shown is one
            return found
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            got = f"{type(error).__name__}: {error}"
            raise OptionError("JSON of a comparison", got, "give what to_json wrote") from error

    def svg(self) -> str:
        """A plot as SVG, complete in itself: dispersion, requests over time, and distribution functions of lengths."""
        from servegen_gpu.comparing.plot import svg

        return svg(self)

    def _repr_svg_(self) -> str:
        return self.svg()


def verdict(kind: str, value: float, low: float, high: float) -> str:
    """Inside an interval, near it, or outside."""
    if not all(map(math.isfinite, (value, low, high))):
        return "-"
    if low <= value <= high:
        return "inside"
    if kind == "scale":
        near = min(low / NEAR_FACTOR, low * NEAR_FACTOR) <= value <= max(high / NEAR_FACTOR, high * NEAR_FACTOR)
    else:
        near = low - NEAR[kind] <= value <= high + NEAR[kind]
    return "near" if near else "outside"


def _plain(value: Any) -> Any:
    """Without NaN, and with lists for tuples."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
