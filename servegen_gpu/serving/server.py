"""One instance of a serving system, in the few numbers that waiting depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from servegen_gpu.errors import OptionError
from servegen_gpu.options import integer

LONGEST_STEP_S, LONGEST_TOKEN_S, LARGEST_BATCH = 1e3, 1.0, 10**6
"""Bounds under which the duration of any step is a 64-bit number of picoseconds."""
LONGEST_MOVE_S = 1e-3
"""Of a token that is downloaded, normalised, encoded or moved: 2**31 of them are 64-bit picoseconds."""

ORIGINS = ("published", "fitted", "assumed")


@dataclass(frozen=True)
class Server:
    """An instance with continuous batching, chunked prefill and priority to decode.

    A step takes ``step_s + prefill_s_per_token * (input tokens in it) + decode_s_per_sequence * (sequences that
    decode in it)``, and ``prefill_s_per_step`` more if there is input in it. The defaults are no system's: they are the
    round numbers of a large model on a few devices.

    Attributes
    ----------
    step_s : float
        What every step takes, whatever is in it; 1 ns to 1,000 s.
    prefill_s_per_token, decode_s_per_sequence : float
        What an input token, and a sequence that decodes, add to a step; up to 1 s.
    step_tokens : int
        Token budget of a step. Sequences that decode take one each and always go on; input tokens get what is left.
    max_sequences : int
        Sequences that are in work at once.
    kv_tokens : int
        Capacity of the KV cache. A request reserves its input and its output when it begins; one that is larger than
        the cache runs alone.
    prefill_s_per_step : float
        What input adds to a step once, however much it is; up to 1,000 s.
    origins : mapping of str to str
        Where a parameter is from: a text that begins with ``published``, ``fitted`` or ``assumed``. What is not named
        is assumed.
    name, model, hardware : str
        What it is a model of.

    Raises
    ------
    OptionError
        If a number is out of its range, or an origin names no parameter.
    """

    step_s: float = 0.012
    prefill_s_per_token: float = 1 / 12_000
    decode_s_per_sequence: float = 0.00015
    step_tokens: int = 2048
    max_sequences: int = 256
    kv_tokens: int = 400_000
    prefill_s_per_step: float = 0.0
    origins: Mapping[str, str] = field(default_factory=dict, hash=False)
    name: str = ""
    model: str = ""
    hardware: str = ""

    def __post_init__(self) -> None:
        check_time(self, "step_s", 1e-9, LONGEST_STEP_S)
        check_time(self, "prefill_s_per_token", 0.0, LONGEST_TOKEN_S)
        check_time(self, "decode_s_per_sequence", 0.0, LONGEST_TOKEN_S)
        check_time(self, "prefill_s_per_step", 0.0, LONGEST_STEP_S)
        check_number(self, "step_tokens", LARGEST_BATCH)
        check_number(self, "max_sequences", LARGEST_BATCH)
        check_number(self, "kv_tokens", 2**62)
        for name, origin in self.origins.items():
            if name not in PARAMETERS:
                raise OptionError(f"origins of {', '.join(PARAMETERS)}", repr(name), "name a parameter")
            if not str(origin).startswith(ORIGINS):
                expected = f"an origin that begins with {', '.join(ORIGINS[:-1])} or {ORIGINS[-1]}"
                raise OptionError(expected, f"{origin!r} for {name}", "say where the number is from")

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={getattr(self, name):.6g}" for name in PARAMETERS)
        return f"<Server {self.name or 'without a name'}: {numbers}>"

    def origin(self, parameter: str) -> str:
        """Where a parameter is from."""
        return self.origins.get(parameter, "assumed")


def check_time(of: object, name: str, least: float, most: float) -> None:
    """Refuse an attribute that is no time between bounds, in seconds."""
    value = getattr(of, name)
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not math.isfinite(value) or not least <= value <= most:
        raise OptionError(f"{name} from {least:g} to {most:g} s", repr(value), f"change {name}")


def check_number(of: object, name: str, most: int) -> None:
    """Refuse an attribute that is no whole number from 1."""
    integer(name, getattr(of, name), most, 1)


PARAMETERS = tuple(name for name, known in Server.__dataclass_fields__.items() if known.type in ("float", "int"))
