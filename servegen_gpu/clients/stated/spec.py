"""What one client does, in the field's own terms: how often, how bursty, how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.correlation import spearman_matrix
from servegen_gpu.clients.pool import MAX_CLIENT_ID
from servegen_gpu.clients.stated.arrivals import Arrivals
from servegen_gpu.clients.stated.distributions import as_distribution
from servegen_gpu.clients.stated.in_time import Steps, number_steps, rate_of, steps_of
from servegen_gpu.clients.stated.tabulate import grid_of, tabulate
from servegen_gpu.errors import OptionError, ServeGenError
from servegen_gpu.options import whole
from servegen_gpu.rates import Rate
from servegen_gpu.request.schema import category_of, of

MAX_CONTEXT = 2**31 - 1


@dataclass(frozen=True, eq=False)
class ClientSpec:
    """What one client does, or `count` clients alike; made by `client`.

    Attributes
    ----------
    name : str
        For messages; traces know clients by number.
    category : str
        ``"language"``, ``"reason"`` or ``"multimodal"``.
    count : int
    rate : Rate
        Of each of them.
    arrivals : Steps of Arrivals
    lengths : dict of str to Steps of Distribution
        By field, in lane order.
    correlation : float64[scalar fields, scalar fields], optional
        Spearman correlations between the fields of one request.
    context_tokens : int
        Most tokens of input and output together; 0 is no limit.
    """

    name: str
    category: str
    count: int
    rate: Rate
    arrivals: Steps
    lengths: dict[str, Steps]
    correlation: NDArray[np.float64] | None
    context_tokens: int

    def __repr__(self) -> str:
        alike = f", {self.count:,} alike" if self.count > 1 else ""
        return f"<ClientSpec {self.name or 'without a name'} ({self.category}): {', '.join(self.lengths)}{alike}>"


def client(
    *,
    rate: Any,
    arrivals: str | Arrivals | Mapping[Any, Arrivals] = "exponential",
    shape: Any = None,
    cv: Any = None,
    input_tokens: Any = None,
    output_tokens: Any = None,
    reason_ratio: Any = None,
    text_tokens: Any = None,
    image_count: Any = None,
    image_tokens: Any = None,
    audio_count: Any = None,
    audio_tokens: Any = None,
    video_count: Any = None,
    video_tokens: Any = None,
    rank_correlation: Any = None,
    context_tokens: int | None = None,
    count: int = 1,
    name: str = "",
) -> ClientSpec:
    """Describe a client; the fields that are given decide its category.

    Parameters
    ----------
    rate : float, mapping, sequence, Schedule, str or callable
        Requests per second of each client: a number, steps ``{"0h": 1, "8h": 5}``, a `Schedule` or the path of one,
        a `Diurnal` curve, or any function of the time in seconds.
    arrivals : {"exponential", "gamma", "weibull", …}
        Family of the gaps, a name of `FAMILIES`; also an `Arrivals`, or ``{time: Arrivals}``.
    shape, cv : float or mapping, optional
        Shape of the family, or its coefficient of variation; one of them, which may change in time: ``{time: cv}``.
    input_tokens, output_tokens : distribution
        A number, ``{tokens: weight}``, samples, a frozen distribution of ``scipy.stats``, or one of
        ``servegen_gpu.distributions``; or ``{time: distribution}`` for one that changes in time.
    reason_ratio : distribution, optional
        Share of the output that is reasoning, 0 to 1: makes the category ``reason``.
    text_tokens, image_count, image_tokens, … : distribution, optional
        Instead of `input_tokens`: text, items of each modality, and tokens of one item; makes the category
        ``multimodal``. Modalities that are left out have no items.
    rank_correlation : mapping or float64[fields, fields], optional
        Spearman correlations between fields of a request: ``{"input_tokens:output_tokens": 0.3}``.
    context_tokens : int, optional
        Most tokens of input and output together; longer requests are cut, which weakens a rank correlation.
    count : int
        How many clients are like this, each with the whole `rate`.
    name : str
        For messages.

    Raises
    ------
    OptionError, RateError
        If something is missing, contradicts itself or is out of range.
    """
    given = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "reason_ratio": reason_ratio,
        "text_tokens": text_tokens,
        "image_count": image_count,
        "audio_count": audio_count,
        "video_count": video_count,
        "image_tokens": image_tokens,
        "audio_tokens": audio_tokens,
        "video_tokens": video_tokens,
    }
    given = {field: value for field, value in given.items() if value is not None}
    if not isinstance(name, str):
        raise OptionError("a name of a client as text", repr(name)[:60], "change name")
    who = f"client {name!r}" if name else "a client"
    category = _category(given, who)
    if (number := whole(count)) is None or not 1 <= number <= MAX_CLIENT_ID:
        raise OptionError(f"count from 1 to {MAX_CLIENT_ID:,}", f"{count!r} of {who}", "change count")
    return ClientSpec(
        name=name,
        category=category,
        count=number,
        rate=rate_of(rate),
        arrivals=_arrivals(arrivals, shape, cv),
        lengths={f.name: _lengths(f.name, given.get(f.name, f.default), who) for f in of(category).fields},
        correlation=None if rank_correlation is None else spearman_matrix(rank_correlation, category),
        context_tokens=_context(context_tokens),
    )


def _category(given: Mapping[str, Any], who: str) -> str:
    """Category by the fields, which must be complete."""
    category = category_of(given)
    schema = of(category)
    if foreign := [field for field in given if field not in schema.names]:
        raise OptionError(
            f"fields of one category ({category}: {', '.join(schema.names)})",
            f"{', '.join(foreign)} as well for {who}",
            "leave it out",
        )
    needed = [field.name for field in schema.fields if field.default is None]
    for modality in schema.items:
        pair = (modality.count.name, modality.item.name)
        needed += pair if any(field in given for field in pair) else ()
    if missing := [field for field in needed if field not in given]:
        raise OptionError(f"{', '.join(missing)} of {who}", "none", "add it")
    return category


def _arrivals(arrivals: Any, shape: Any, cv: Any) -> Steps:
    """Gaps in time from a family, and a shape or a CV that may change."""
    if not isinstance(arrivals, str):
        if shape is not None or cv is not None:
            raise OptionError("shape and cv inside Arrivals", "beside it as well", "leave out one of them")
        steps = steps_of(arrivals)
        if wrong := [value for value in steps.values if not isinstance(value, Arrivals)]:
            raise OptionError("Arrivals, or the name of a family", repr(wrong[0])[:60], "see servegen_gpu.Arrivals")
        return steps
    if shape is not None and cv is not None:
        raise OptionError("shape or cv", "both", "leave out one of them")
    if shape is not None:
        return number_steps(shape).map(lambda value: Arrivals(arrivals, shape=value))
    return number_steps(cv).map(lambda value: Arrivals(arrivals, cv=value))


def _lengths(field: str, value: Any, who: str) -> Steps:
    """Distributions in time of a field, tried on its grid so that faults are found here."""
    try:
        steps = steps_of(value).map(as_distribution)
        for distribution in steps.values:
            tabulate(distribution, grid_of(field))
        return steps
    except ServeGenError as error:
        raise OptionError(error.expected, f"{error.got} for {field} of {who}", error.fix) from error


def _context(context_tokens: int | None) -> int:
    if context_tokens is None:
        return 0
    found = whole(context_tokens)
    if found is None or not 2 <= found <= MAX_CONTEXT:
        raise OptionError(
            "context_tokens of at least 2, a token of input and one of output", repr(context_tokens), "change it"
        )
    return found
