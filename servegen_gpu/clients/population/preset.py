"""What a population is made of: how skewed its rates are, who its largest clients are, and kinds for all others.

A *kind* says what clients have in common; clients of one kind differ by a *spread*: each gets one of a few steps of
burstiness, of the time of its day, and of its lengths. So all clients of a population share a few hundred profiles
and a few dozen tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.population.skew import Skew
from servegen_gpu.clients.stated.environment import Environment
from servegen_gpu.clients.stated.spec import ClientSpec
from servegen_gpu.clients.stated.turns import TurnModel


@dataclass(frozen=True)
class Spread:
    """How much clients of one kind differ.

    Attributes
    ----------
    cv, input_tokens, output_tokens : float
        Standard deviation, over clients, of the natural logarithm of the CV of their gaps and of their mean lengths
        (of the text where there are modalities). Exponential gaps keep their CV.
    hours : float
        Standard deviation of the time by which their day comes sooner or later, hours.
    """

    cv: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    hours: float = 0.0


@dataclass(frozen=True, eq=False)
class Kind:
    """Clients that behave alike; or, in `Preset.top`, one client.

    Attributes
    ----------
    spec : ClientSpec
    rate : float64[windows]
        Shape in time, with a mean of 1: the rate of each client follows from the skew.
    share : float
        Of the requests of all clients but the explicit ones.
    tail_share : float
        Of the clients beyond the largest 256: where it differs from `share`, burstiness and lengths go with the rate.
    spread : Spread
    """

    spec: ClientSpec
    rate: NDArray[np.float64]
    share: float = 0.0
    tail_share: float = 0.0
    spread: Spread = Spread()


@dataclass(frozen=True, eq=False)
class Preset:
    """A population of any number of clients.

    Attributes
    ----------
    name, category : str
    clients : int
        How many there are, unless asked otherwise.
    rate_rps : float
        Mean rate of all clients together, however many.
    windows : int
        Of 600 s, after which the population repeats: whole days.
    skew : Skew
    top : tuple of Kind
        The largest clients, one by one.
    kinds : tuple of Kind
        Of all others; their shares add up to 1.
    turns : TurnModel or None
        How clients hold conversations.
    environment : Environment or None
        What moves the rates of all clients together.
    text : str
        The file it comes from.
    """

    name: str
    category: str
    clients: int
    rate_rps: float
    windows: int
    skew: Skew
    top: tuple[Kind, ...]
    kinds: tuple[Kind, ...]
    turns: TurnModel | None = None
    environment: Environment | None = None
    text: str = ""
