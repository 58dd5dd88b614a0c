"""ServeGen's module ``workload_types``: categories, arrival patterns, and one client in one window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any

__all__ = ["ArrivalPat", "Category", "ClientWindow"]


class Category(Enum):
    """Categories of workloads: the directories of the data."""

    LANGUAGE = "language"
    MULTIMODAL = "multimodal"
    REASON = "reason"


class ArrivalPat(Enum):
    """Families of inter-arrival times."""

    GAMMA = "Gamma"
    WEIBULL = "Weibull"


@dataclass
class ClientWindow:
    """One client in one window of a view.

    Attributes
    ----------
    client_id : int
    timestamp : int or float
        Where the window begins, seconds from the view's start.
    window_size : int or float
        Seconds; shorter where the view cuts the window, ``inf`` for the last window of an open view.
    rate : float, optional
        Requests per second; None where the client is silent.
    cv : float, optional
        Coefficient of variation of inter-arrival times.
    arrival_pat : tuple, optional
        ``(name, (shape, scale))``.
    dataset : dict of str to list of float, optional
        Probability of every value from 0 on, by field. Lists are built when somebody looks, once for all windows that
        share them.
    """

    client_id: int
    timestamp: float
    window_size: float
    rate: float | None = None
    cv: float | None = None
    arrival_pat: tuple[str, tuple[float, ...]] | None = None
    dataset: dict[str, list[float]] | None = None


class Unbuilt(ABC):
    """A dataset that builds its lists when somebody looks."""

    __slots__ = ()

    @abstractmethod
    def build(self) -> dict[str, list[float]]:
        """The lists by field."""


def _look(window: ClientWindow) -> Any:
    held = window.__dict__["_dataset"]
    if isinstance(held, Unbuilt):
        held = window.__dict__["_dataset"] = held.build()
    return held


def _put(window: ClientWindow, dataset: Any) -> None:
    window.__dict__["_dataset"] = dataset


# set after the decorator has run, so that the field stays a field with its default, its place in repr and in ==
ClientWindow.dataset = property(_look, _put)  # type: ignore[assignment]
