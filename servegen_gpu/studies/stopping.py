"""When replicas are enough: intervals that hold at all times, so that a study may stop whenever they are narrow enough.

An interval of 95 % that is looked at again and again misses sooner or later, and a study that stops when it likes what
it sees stops then. Two sequences of intervals hold at all times at once:

- of a mean: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas ("Time-uniform
  central limit theory and asymptotic confidence sequences", Annals of Statistics 52, 2024, theorem 2.2), a mixture of
  normal likelihoods after Robbins (1970);
- of a share: Ville's inequality for the mixture of binomial likelihoods over a Beta prior (Robbins 1970), exact at any
  number. As exp is convex, it holds as well for the mean of any numbers from 0 to 1 (Hoeffding 1963).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from servegen_gpu.errors import OptionError
from servegen_gpu.studies.intervals import Interval

FEWEST = 50
"""Units before a mean is looked at, as the sequence is asymptotic. With 95 %, of 3,000 studies looked at up to 2,000
units, 4.0 % missed with normal values, 4.0 % with Gumbel's, 5.3 % with exponential ones."""
NARROWEST_AT = 300
"""Number of units at which the interval of a mean is narrowest, compared with one that is looked at once."""
PRIOR = 4.0
"""Units that the Beta prior of a share weighs, around the share that is asked for."""

GRAMMAR = "1%, METRIC:1%, METRIC<=NUMBER@95% or METRIC>=NUMBER@95%"
_METRIC = r"[^\s:<>=@]+"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PRECISION = re.compile(rf"(?:({_METRIC})\s*:\s*)?({_NUMBER})\s*%")
_DECISION = re.compile(rf"({_METRIC})\s*(<=|>=)\s*({_NUMBER})\s*@\s*({_NUMBER})\s*%")


@dataclass(frozen=True)
class Precision:
    """Until the interval of the mean reaches no further than a share of the mean to either side.

    Attributes
    ----------
    metric : str
        Empty for all of them.
    relative : float
    """

    metric: str
    relative: float

    def __str__(self) -> str:
        return f"{self.metric}:{100 * self.relative:.10g}%" if self.metric else f"{100 * self.relative:.10g}%"


@dataclass(frozen=True)
class Decision:
    """Until it is known whether at least a share of all replicas has a metric on one side of a bound.

    Attributes
    ----------
    metric : str
    above : bool
        Whether the metric is to be at least the bound, or at most.
    bound : float
    share : float
    """

    metric: str
    above: bool
    bound: float
    share: float

    def __str__(self) -> str:
        bound = f"{self.bound:.10g}" if float(f"{self.bound:.10g}") == self.bound else repr(self.bound)
        return f"{self.metric}{'>=' if self.above else '<='}{bound}@{100 * self.share:.10g}%"

    def holds(self, value: float) -> bool:
        """Whether a replica is on the wanted side; one without a value is not."""
        return value >= self.bound if self.above else value <= self.bound


Rule = Precision | Decision


def parse_until(until: str | float | Iterable[str | float] | None) -> tuple[Rule, ...]:
    """Rules from text: a precision (``"1%"``, ``"requests_peak_10s:1%"``), or a decision.

    ``"instances<=12@95%"`` asks whether at least 95 % of replicas have 12 instances or fewer. All rules of several must
    be met. A number is a precision of all metrics: 0.01.
    """
    if until is None:
        return ()
    if isinstance(until, str | float | int):
        until = [until]
    return tuple(_rule(one) for one in until)


def _rule(text: str | float) -> Rule:
    stated = (
        f"{100 * text:.17g}%" if isinstance(text, float | int) and not isinstance(text, bool) else str(text).strip()
    )
    if (match := _PRECISION.fullmatch(stated)) and 0 < float(match[2]) < 100:
        return Precision(match[1] or "", float(match[2]) / 100)
    if (match := _DECISION.fullmatch(stated)) and math.isfinite(float(match[3])) and 0 < float(match[4]) < 100:
        return Decision(match[1], match[2] == ">=", float(match[3]), float(match[4]) / 100)
    raise OptionError(f"until as {GRAMMAR}, above 0 % and below 100 %", repr(text)[:60], "change until")


@dataclass
class Moments:
    """Running mean and variance (Welford's)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Count a value; NaN says nothing, and nothing is known of the mean with an infinite one."""
        if not math.isnan(value):
            self.n += 1
            step = value - self.mean
            self.mean += step / self.n
            self.squares += step * (value - self.mean)

    def interval(self, confidence: float) -> Interval:
        """The mean at all times at once."""
        if self.n < FEWEST:
            return Interval(self.mean if self.n else math.nan, -math.inf, math.inf)
        half = mean_width(self.n, confidence) * math.sqrt(self.squares / (self.n - 1))
        return Interval(self.mean, self.mean - half, self.mean + half)


def mean_width(n: int, confidence: float) -> float:
    """Half of the interval of a mean of `n` units, in their standard deviations."""
    alpha = 1 - confidence
    best = -2 * math.log(alpha)
    x = n * (best + math.log(best + 1)) / NARROWEST_AT
    return math.sqrt(2 * (x + 1) / x * math.log(math.sqrt(x + 1) / alpha) / n)


@dataclass
class Share:
    """A share of units, or a mean of numbers from 0 to 1, at all times at once.

    Attributes
    ----------
    around : float
        Where the prior is, above 0 and below 1: the interval shrinks fastest around it.
    """

    around: float
    n: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        """Count a unit: 0, 1, or between."""
        self.n += 1
        self.total += value

    def against(self, p: float) -> float:
        """Logarithm of the mixture's likelihood over that of `p`: above -log(1 - confidence), `p` is out."""
        a, b = PRIOR * self.around, PRIOR * (1 - self.around)
        rest = self.n - self.total
        mixture = _log_beta(a + self.total, b + rest) - _log_beta(a, b)
        return mixture - _times_log(self.total, p) - _times_log(rest, 1 - p)

    def interval(self, confidence: float) -> Interval:
        """All shares that are not out."""
        if not self.n:
            return Interval(math.nan, 0.0, 1.0)
        limit, middle = -math.log(1 - confidence), self.total / self.n

        def edge(outside: float) -> float:
            if self.against(outside) <= limit:
                return outside
            inside = middle
            for _ in range(50):
                half = (outside + inside) / 2
                outside, inside = (half, inside) if self.against(half) > limit else (outside, half)
            return outside

        return Interval(middle, edge(0.0), edge(1.0))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _times_log(times: float, p: float) -> float:
    if not times:
        return 0.0
    return times * math.log(p) if p > 0 else -math.inf


@dataclass(frozen=True)
class Verdict:
    """What a rule says of the units so far.

    Attributes
    ----------
    rule : Rule
    metric : str
    met : bool
        Whether replicas are enough.
    interval : Interval
        Of the mean, or of the share of replicas on the wanted side.
    answer : {"yes", "no", ""}
        To a decision, once it is known.
    """

    rule: Rule
    metric: str
    met: bool
    interval: Interval
    answer: str = ""

    def __str__(self) -> str:
        value, low, high = self.interval
        if isinstance(self.rule, Decision):
            side = f"{self.metric} {'>=' if self.rule.above else '<='} {self.rule.bound:,.10g}"
            least = f"at least {self.rule.share:.6g} of replicas have {side}"
            return f"{least}: {self.answer or 'undecided'} (share {value:.4f}, {low:.4f} to {high:.4f})"
        reach = relative_reach(self.interval)
        reached = f"±{100 * reach:.2g} %" if reach < 10 else "not known yet"
        if math.isinf(high):
            reached = f"not known before {FEWEST} replicas or draws have a value"
        return f"mean of {self.metric} to ±{100 * self.rule.relative:.4g} %: {'yes' if self.met else 'no'} ({reached})"


def relative_reach(interval: Interval) -> float:
    """How far an interval reaches to either side of its value, as a share of it."""
    half = (interval.high - interval.low) / 2
    if half == 0:
        return 0.0
    return half / abs(interval.value) if interval.value and math.isfinite(half) else math.inf


@dataclass
class Watch:
    """Looks at units as they come, and says when to stop.

    Parameters
    ----------
    rules : sequence of Rule
    metrics : sequence of str
        All that there are.
    confidence : float
        Of each interval, over all looks.

    Raises
    ------
    OptionError
        If a rule is about a metric that there is not.
    """

    rules: Sequence[Rule]
    metrics: Sequence[str]
    confidence: float
    moments: dict[str, Moments] = field(default_factory=dict)
    shares: dict[Decision, Share] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule.metric and rule.metric not in self.metrics:
                raise OptionError(f"until about {', '.join(self.metrics)}", repr(rule.metric), "name one of them")
            if isinstance(rule, Decision):
                self.shares[rule] = Share(rule.share)
            else:
                self.moments |= {name: Moments() for name in self._of(rule)}

    def _of(self, rule: Rule) -> Sequence[str]:
        return (rule.metric,) if rule.metric else self.metrics

    def add(self, unit: Sequence[Mapping[str, float]]) -> bool:
        """Count a unit, which has one replica or more; returns whether all rules are met."""
        for name, moments in self.moments.items():
            values = [value for replica in unit if not math.isnan(value := replica[name])]
            moments.add(sum(values) / len(values) if values else math.nan)
        for rule, share in self.shares.items():
            share.add(sum(rule.holds(replica[rule.metric]) for replica in unit) / len(unit))
        return bool(self.rules) and all(self._met(rule, name) for rule in self.rules for name in self._of(rule))

    def _met(self, rule: Rule, name: str) -> bool:
        if isinstance(rule, Decision):
            return bool(self._answer(rule))
        return relative_reach(self.moments[name].interval(self.confidence)) <= rule.relative

    def _answer(self, rule: Decision) -> str:
        share = self.shares[rule]
        if not share.n or share.against(rule.share) < -math.log(1 - self.confidence):
            return ""
        return "yes" if share.total / share.n > rule.share else "no"

    def verdicts(self) -> list[Verdict]:
        """What is known of every rule, by metric."""
        found = []
        for rule in self.rules:
            for name in self._of(rule):
                if isinstance(rule, Decision):
                    interval, answer = self.shares[rule].interval(self.confidence), self._answer(rule)
                    found.append(Verdict(rule, name, bool(answer), interval, answer))
                else:
                    interval = self.moments[name].interval(self.confidence)
                    found.append(Verdict(rule, name, self._met(rule, name), interval))
        return found
