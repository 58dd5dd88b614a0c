"""What an export is: a trace as a file of another program, and the command that replays it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.formats.base import Format
from servegen_gpu.options import integer
from servegen_gpu.trace import Trace

Deltas = Literal["exact", "nearest"]
DELTAS = ("exact", "nearest")
MAX_BLOCK_TOKENS = 2**31 - 1

Say = Callable[[str], None]
"""Takes a note for the user."""


@dataclass(frozen=True)
class ExportOptions:
    """What a user may say about an export.

    Attributes
    ----------
    block_tokens : int, optional
        Tokens of a block, where the format needs ids of blocks and the trace has none. By default what the format's
        readers expect.
    deltas : {"exact", "nearest"}
        Formats whose later turns state new tokens only need inputs that are the history and new tokens. Others are
        refused, or given the nearest such inputs.
    tokenizer : str, optional
        Directory of a Hugging Face tokenizer, for formats with literal prompts and for the command that replays.
    model, url : str
        Of the server, in the command that replays.
    window_s : float
        Of formats that hold rates.
    encoding : {"delta", "plain"}
        Of Parquet; see `servegen_gpu.formats.write_stream`.
    dense_ids : bool
        Number conversations and blocks 0, 1, 2, …, as `dense_ids` does; in the package's own formats, too.
    """

    block_tokens: int | None = None
    deltas: Deltas = "exact"
    tokenizer: str | None = None
    model: str = "MODEL"
    url: str = "http://localhost:8000"
    window_s: float = 60.0
    encoding: Literal["delta", "plain"] = "delta"
    dense_ids: bool = False

    def __post_init__(self) -> None:
        if self.deltas not in DELTAS:
            raise unknown("deltas", self.deltas, DELTAS, "change deltas")
        if self.block_tokens is not None and integer("block_tokens", self.block_tokens, MAX_BLOCK_TOKENS) < 1:
            raise OptionError("block_tokens of at least 1", f"{self.block_tokens}", "take what the reader expects")


@dataclass(frozen=True)
class Replay:
    """What a command that replays a file is made from.

    Attributes
    ----------
    path : str
    columns : tuple of str
        Of the trace.
    requests : int
    block_tokens : int
        0 without ids of blocks.
    duration_s : float
    options : ExportOptions
    """

    path: str
    columns: tuple[str, ...]
    requests: int
    block_tokens: int
    duration_s: float
    options: ExportOptions

    @property
    def tokenizer(self) -> str:
        """The tokenizer's name."""
        return self.options.tokenizer or self.options.model


@dataclass(frozen=True)
class Export:
    """One format of another program.

    Attributes
    ----------
    name : str
    what : str
        What it is, in a few words.
    readers : str
        Programs that read it, and the versions it was compared with.
    time : str
        Unit of its times and the finest step of one.
    columns : tuple of str
        Of a trace, those that its files hold. The others are left out, and the user is told.
    format : callable
        The file: suffix and encoder under some options. `encode` receives what `prepare` made.
    prepare : callable
        Slabs as the encoder wants them, one after the other: columns added, checked, of other units. What it keeps from
        slab to slab is here, not in the encoder.
    replay : callable
        Words of the command that replays the file; none if no program does.
    inputs : str
        What ``input_tokens`` are in its files: ``"whole"``, or ``"new"`` where later turns have their new tokens only.
    items : str
        What its files say of images, audio and video.
    remark : str
        What to know about that command.
    suffixes : tuple of str
        Of file names, if the reader takes no others.
    """

    name: str
    what: str
    readers: str
    time: str
    columns: tuple[str, ...]
    format: Callable[[ExportOptions], Format]
    prepare: Callable[[Iterator[Trace], ExportOptions, Say], Iterator[Trace]]
    replay: Callable[[Replay], Sequence[str]]
    inputs: str = "whole"
    items: str = ""
    remark: str = ""
    suffixes: tuple[str, ...] = ()


def as_it_is(slabs: Iterator[Trace], options: ExportOptions, say: Say) -> Iterator[Trace]:
    """The slabs: `prepare` of formats that hold what a trace holds."""
    return slabs


def saying(slabs: Iterator[Trace], note: str, when: Callable[[Trace], bool], say: Say) -> Iterator[Trace]:
    """The slabs, and a note if any of them is so."""
    said = False
    for slab in slabs:
        if not said and when(slab):
            said = True
            say(note)
        yield slab
        del slab  # not kept while the next one is made
