"""What a fit rests on, for people and for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from servegen_gpu.clients.stated.turns import TurnModel
from servegen_gpu.fitting.gaps import GapFamilies
from servegen_gpu.fitting.lengths import Form, length_fit
from servegen_gpu.fitting.sessions import SessionFacts
from servegen_gpu.fitting.surroundings import Surroundings
from servegen_gpu.fitting.who import Who
from servegen_gpu.request.families import FAMILY_NAMES
from servegen_gpu.request.schema import KINDS, Kind


@dataclass(frozen=True)
class FitReport:
    """How a log became clients.

    Attributes
    ----------
    requests : int
    span_s, tick_s : float
    horizon_s : float
        Longest time about whose dispersion the log says something.
    step : str
        Of the ladder: ``"mean rate"``, ``"ids"``, ``"latent clients"`` or ``"one client"``.
    clients, profiles : int
    how : str
        How clients were found.
    families : dict of str to int
        Clients by gap family, and in `family_ks` the median distance of their gaps to it.
    family_ks : dict of str to float
    dependence : str
        What carries the dependence between lengths.
    energy : dict of str to float
        Energy distance of each candidate to the log; ``floor`` is that of one part of the log to another.
    lengths : tuple of dict
        By field: form, KS distances to the log and to its second half, and the floor of these.
    sessions : dict
        How conversations were found, and their share.
    environment : dict or None
        Variance with its standard error, octaves, cell, and where the margin comes from.
    window_weight : float
        How much of a window's own rate is kept, the rest is the client's mean; the mean over requests.
    suppressed : dict
        What a least count took away (`Suppressed`); empty without one.
    notes : tuple of str
    """

    requests: int
    span_s: float
    tick_s: float
    horizon_s: float
    step: str
    clients: int
    profiles: int
    how: str
    families: dict[str, int]
    family_ks: dict[str, float]
    dependence: str
    energy: dict[str, float]
    lengths: tuple[dict[str, Any], ...]
    sessions: dict[str, Any]
    environment: dict[str, Any] | None
    window_weight: float
    suppressed: dict[str, Any]
    notes: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """In terms that JSON and TOML have."""
        return asdict(self)

    def __repr__(self) -> str:
        return f"<FitReport of {self.requests:,} requests: {self.how}>"

    def __str__(self) -> str:
        families = ", ".join(
            f"{name} {count:,}" + (f" (KS {self.family_ks[name]:.3f})" if name in self.family_ks else "")
            for name, count in self.families.items()
        )
        lines = [
            f"{self.requests:,} request{'s' * (self.requests != 1)} in {self.span_s:,.0f} s; how counts vary is "
            f"known for windows of up to {self.horizon_s:,.0f} s",
            f"  step         {self.step}: {self.how}",
            f"  clients      {self.clients:,}, of {self.profiles:,} kind{'s' * (self.profiles != 1)}",
            f"  gaps         {families}",
            f"  rates        {self._rates()}",
            f"  dependence   of lengths on each other: {self.dependence}",
        ]
        if self.energy:
            lines.append(
                "  energy       distance of lengths to the log: "
                + " · ".join(f"{name} {d:.4f}" for name, d in self.energy.items())
            )
        lines += [
            f"  {one['field']:12} {one['form']}: KS distance {one['ks']:.3f} to the log; of a fit of one half to the "
            f"other half {one['ks_later']:.3f}, of the halves to each other {one['floor']:.3f}"
            for one in self.lengths
        ]
        lines.append("  sessions     " + ", ".join(f"{k}: {_short(v)}" for k, v in self.sessions.items()))
        if self.environment is None:
            lines.append("  environment  none")
        else:
            lines.append(f"  environment  {self._moved(self.environment)}")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])

    @staticmethod
    def _moved(about: dict[str, Any]) -> str:
        scales = " · ".join(
            f"{weight:.0%} over {about['cell s'] * 2.0 ** int(k):g} s" for k, weight in about["octaves"].items()
        )
        return (
            f"a random factor on all rates with a variance of {about['variance']:.3g} (± {about['error']:.2g}), 0 in "
            f"{about['empty cells']:.0%} of cells of {about['cell s']:g} s; {scales}"
        )

    def _rates(self) -> str:
        if self.window_weight == 0:
            return "constant: windows differ no more than by chance, or the log cannot tell"
        if self.window_weight == 1:
            return "of each window as counted"
        return f"of each window {self.window_weight:.0%} as counted and the rest the client's mean, to take out chance"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{k} = {_short(v)}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def families_of(families: GapFamilies, who: Who) -> dict[str, Any]:
    """Clients by family, and how near their gaps are to it."""
    code = families.family[who.profile]
    counts = {FAMILY_NAMES[f]: int((code == f).sum()) for f in np.unique(code)}
    ks = {
        FAMILY_NAMES[f]: float(np.median(mine))
        for f in np.unique(families.family)
        if len(mine := families.ks[(families.family == f) & np.isfinite(families.ks)])
    }
    return {"families": counts, "family_ks": ks}


def length_fits(found: Mapping[str, Any], who: Who, forms: Form | Mapping[str, Form]) -> tuple[dict[str, Any], ...]:
    """How near the lengths of each field are to their form."""
    fits = []
    for field, (row, value) in found.items():
        if KINDS[field] is Kind.ONCE and len(value):
            form: Form = forms if isinstance(forms, str) else forms.get(field, "counts")
            fits.append(vars(length_fit(value, who.label[row], who.profiles, form, field)))
    return tuple(fits)


def sessions_of(talks: SessionFacts, models: Sequence[TurnModel]) -> dict[str, Any]:
    """How conversations were found, and what they are like."""
    about: dict[str, Any] = {"found by": talks.found, "share": talks.share}
    if talks.match_share is not None and talks.chance is not None:
        about |= {"near copies": talks.match_share, "of them by chance": talks.chance}
    if models:
        model = models[0]
        about |= {"growth": model.growth, "mean turns": model.mean_turns, "longest s": model.session_s}
    return about


def environment_of(around: Surroundings) -> dict[str, Any] | None:
    """The environment in a few numbers."""
    if (found := around.environment) is None:
        return None
    about = {"variance": found.variance, "error": found.variance_error, "empty cells": found.environment.margin.zero}
    octaves = {str(k): weight for k, weight in found.environment.octaves.items()}
    more = {"cell s": found.environment.cell_s, "octaves": octaves, "common": around.common}
    return about | more | {"margin from": found.margin_from}
