"""How bursty a client is: a family of gaps, with its shape or its coefficient of variation (CV)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from servegen_gpu.errors import OptionError
from servegen_gpu.options import check_choice
from servegen_gpu.request.families import FAMILIES, WITH_SHAPE, GapFamily, settled


@dataclass(frozen=True)
class Arrivals:
    """Gaps between the requests of a client; their mean follows from the client's rate.

    Attributes
    ----------
    family : str
        ``"exponential"`` (a Poisson process), ``"gamma"``, ``"weibull"`` or ``"lognormal"``: `FAMILIES`.
    shape : float, optional
        Of all but exponential gaps; sigma of log-normal ones, up to 3.
    cv : float, optional
        Instead of the shape: standard deviation of the gaps over their mean, 0.01 to 1,000. Above 1 is bursty.
    """

    family: str = "exponential"
    shape: float | None = None
    cv: float | None = None

    def __post_init__(self) -> None:
        check_choice("arrivals", self.family, FAMILIES)
        given = [name for name in ("shape", "cv") if getattr(self, name) is not None]
        if len(given) == 2:
            raise OptionError("shape or cv", f"shape {self.shape} and cv {self.cv}", "leave out one of them")
        value = getattr(self, given[0]) if given else 1
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise OptionError(f"{given[0]} as a number", repr(value)[:60], f"change {given[0]}")
        if not self.row.has_shape:
            if self.cv not in (None, 1) or self.shape not in (None, 1):
                got = f"{given[0]} {getattr(self, given[0])}"
                wanted = f"{self.family} gaps, whose cv and shape are 1"
                raise OptionError(wanted, got, f"choose {' or '.join(WITH_SHAPE)}")
        elif not given:
            raise OptionError(f"the shape or the cv of {self.family} gaps", "neither", "give one of them")
        else:
            low, high = self.row.cv_range if given == ["cv"] else self.row.shape_range
            if not low <= value <= high:
                raise OptionError(f"a {given[0]} from {low:g} to {high:g}", repr(value)[:60], f"change {given[0]}")

    @property
    def row(self) -> GapFamily:
        """The family."""
        return FAMILIES[self.family]

    def shape_and_cv(self) -> tuple[float, float]:
        """Both, whichever was given."""
        if not self.row.has_shape:
            return 1.0, 1.0
        if self.shape is not None:
            return float(self.shape), settled(self.row.cv_of(float(self.shape)))
        assert self.cv is not None
        return self.row.shape_of(float(self.cv)), float(self.cv)
