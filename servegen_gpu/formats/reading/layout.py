"""How the formats of the field lay out a request: one row of `LAYOUTS` each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from servegen_gpu.formats.reading import nested
from servegen_gpu.formats.reading.rows import Rows

Sessions = Literal["whole", "new", "links"]


@dataclass(frozen=True)
class Layout:
    """How a format lays out requests.

    Attributes
    ----------
    name : str
    columns : mapping of str to tuple of str
        What is read, by its name in a trace (or ``time``, ``session``, ``delay``, ``parent``, …), and the names that it
        may have in the file, the preferred one first. Case, blanks and underscores do not matter.
    needs : tuple of str
        Names of columns that tell the format from others.
    unit : str, optional
        Of times: "s", "ms", "us" or "ns"; by default values tell.
    sure : bool
        Whether times always have this unit, so that values need not be looked at.
    block_tokens : int, optional
        Tokens of a block of ``hash_ids``.
    sessions : {"whole", "new", "links"}
        What rows of one session are: inputs with all of the history; only what is new, so that the history has to be
        added; or whole inputs, where each names the one before it instead of a session.
    flat : callable, optional
        Makes one row a request of rows with several, or columns that the file does not have as such.
    reads, makes : tuple of str
        Which columns of the file `flat` needs, and which it makes, named as in `columns`.
    uses : tuple of str
        Which others it takes where they are.
    rebase : bool
        Whether times are counted from the first request; where they are already, silence before it stays.
    begin : str
        Where a trace without an origin of its own begins in a file of dates that this package exported.
    says : str
        What the format itself leaves open and reading assumes, for the note.
    """

    name: str
    columns: Mapping[str, tuple[str, ...]]
    needs: tuple[str, ...]
    unit: str | None = None
    sure: bool = False
    block_tokens: int | None = None
    sessions: Sessions = "whole"
    flat: Callable[[Rows], Rows] | None = None
    reads: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    rebase: bool = True
    begin: str = ""
    says: str = ""


def _columns(time: str, input_: str, output: str, **more: str) -> dict[str, tuple[str, ...]]:
    names = {"time": time, "input_tokens": input_, "output_tokens": output} | more
    return {role: tuple(name.split("|")) for role, name in names.items()}


OWN_LISTS = ("image_tokens", "audio_tokens", "video_tokens")
_OWN = ("client", "reason_tokens", "text_tokens", *OWN_LISTS, "turn", "new_tokens", "hash_ids")
_MOONCAKE = _columns(
    "timestamp",
    "input_length",
    "output_length",
    hash_ids="hash_ids",
    client="client|user_id",
    reason_tokens="reason_tokens|reasoning_tokens",
)
_SESSION = _MOONCAKE | {"session": ("session_id",), "delay": ("delay",)}
_MADE = ("time", "input_tokens", "output_tokens", "session")
_FLAT = {role: (role,) for role in _MADE}
_NO_SERVICE = "service times, which the file does not have, count as 0 between the turns of a session"

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            "servegen-gpu",
            _columns("arrival_us", "input_tokens", "output_tokens")
            | {name: (name,) for name in _OWN}
            | {"session": ("conversation",)},
            ("arrival_us", "input_tokens", "output_tokens"),
            unit="us",
            sure=True,
            rebase=False,
        ),
        Layout(
            "bailian",
            _MOONCAKE | {"session": ("chat_id",), "parent": ("parent_chat_id",)},
            ("chat_id", "parent_chat_id", "timestamp", "input_length", "output_length"),
            unit="s",
            block_tokens=16,
            sessions="links",
        ),
        Layout(
            "aiperf",
            _SESSION,
            ("session_id", "delay", "input_length", "output_length"),
            unit="ms",
            block_tokens=512,
            sessions="new",
            says=_NO_SERVICE,
        ),
        Layout(
            "dynamo",
            _SESSION,
            ("session_id", "timestamp", "input_length", "output_length"),
            unit="ms",
            block_tokens=512,
        ),
        Layout("mooncake", _MOONCAKE, ("timestamp", "input_length", "output_length", "hash_ids"), "ms", False, 512),
        Layout("guidellm", _MOONCAKE, ("timestamp", "input_length", "output_length")),
        Layout(
            "burstgpt",
            _columns("Timestamp", "Request tokens", "Response tokens", session="Session ID"),
            ("Timestamp", "Request tokens", "Response tokens"),
            unit="s",
        ),
        Layout(
            "azure",
            _columns("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
            ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
            begin="2023-11-16T00:00:00",
        ),
        Layout(
            "vidur",
            _columns("arrived_at", "num_prefill_tokens", "num_decode_tokens"),
            ("arrived_at", "num_prefill_tokens", "num_decode_tokens"),
            unit="s",
        ),
        Layout(
            "vidur-dates",
            _columns("time", "PromptTokenCount", "CompletionTokenCount"),
            ("Date", "Time", "PromptTokenCount", "CompletionTokenCount"),
            flat=nested.date_and_time,
            reads=("Date", "Time"),
            makes=("time",),
        ),
        Layout(
            "aibrix",
            _FLAT,
            ("timestamp", "requests"),
            unit="ms",
            sessions="new",
            flat=nested.aibrix,
            reads=("timestamp", "requests"),
            makes=_MADE,
            says="inputs of sessions taken as what is new, since AIBrix sends them behind their history",
        ),
        Layout(
            "llmservingsim",
            _columns("arrival_time_ns", "input_toks", "output_toks"),
            ("arrival_time_ns", "input_toks", "output_toks"),
            unit="ns",
            sure=True,
        ),
        Layout(
            "llmservingsim-sessions",
            _FLAT,
            ("session_id", "arrival_time_ns", "sub_requests"),
            unit="ns",
            sure=True,
            flat=nested.llmservingsim,
            reads=("session_id", "arrival_time_ns", "sub_requests"),
            makes=_MADE,
            says=_NO_SERVICE,
        ),
        Layout(
            "blis",
            _columns(
                "arrival_time_us",
                "input_tokens",
                "output_tokens",
                client="client_id",
                session="session_id",
                prefix="prefix_length",
                reason_ratio="reason_ratio",
            ),
            ("arrival_time_us", "input_tokens", "output_tokens"),
            unit="us",
            sure=True,
        ),
        Layout(
            "aiperf-multi-turn",
            _FLAT | {"delay": ("delay",)},
            ("turns",),
            unit="ms",
            sessions="new",
            flat=nested.multi_turn,
            reads=("turns",),
            uses=("session_id",),
            makes=(*_MADE, "delay"),
            says=f"input tokens are the words of the text; {_NO_SERVICE}",
        ),
        Layout(
            "aiperf-single-turn",
            _columns("timestamp", "input_tokens", "output_length", session="session_id", delay="delay"),
            ("text", "timestamp", "output_length"),
            unit="ms",
            sessions="new",
            flat=nested.words,
            reads=("text",),
            makes=("input_tokens",),
            says="input tokens are the words of the text",
        ),
        Layout(
            "splitwise",
            _columns("arrival_timestamp", "prompt_size", "token_size"),
            ("arrival_timestamp", "prompt_size", "token_size"),
            unit="s",
        ),
    )
}

ALIASES: dict[str, tuple[str, dict[str, object]]] = {
    "dynamo-delta": ("aiperf", {}),
    "sglang": ("mooncake", {}),
    "vllm-timed": ("mooncake", {"unit": "s", "block_tokens": None}),
    "guidellm": ("mooncake", {"unit": "s", "block_tokens": None}),
    "inference-perf": ("azure", {}),
}
"""Names of formats that have the layout of another one when they are asked for."""

TABLE = Layout("table", {}, ())
"""Any table, by usual names of columns."""
