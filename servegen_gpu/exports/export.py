"""What an export is: a trace as a file of another program, and the command that replays it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from servegen_gpu.formats.base import Format
from servegen_gpu.trace import Trace

Deltas = Literal["exact", "nearest"]
DELTAS = ("exact", "nearest")

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


@dataclass(frozen=True)
class Replay:
    """What a command that replays a file is made from.

    Attributes
    ----------
    path : str
        The file, quoted for a shell.
    requests : int
    block_tokens : int
        0 without ids of blocks.
    duration_s : float
    options : ExportOptions
    """

    path: str
    requests: int
    block_tokens: int
    duration_s: float
    options: ExportOptions

    @property
    def tokenizer(self) -> str:
        """The tokenizer's name for a command."""
        return self.options.tokenizer or self.options.model


@dataclass(frozen=True)
class Export:
    """One format of another program.

    Attributes
    ----------
    name : str
    what : str
        What it is and who reads it, in a few words.
    format : callable
        The file: suffix and encoder under some options. `encode` receives what `prepare` made.
    prepare : callable
        Slabs as the encoder wants them, one after the other: columns added, checked, of other units. What it keeps from
        slab to slab is here, not in the encoder.
    replay : callable
        The shell command that replays the file; empty if no program does.
    """

    name: str
    what: str
    format: Callable[[ExportOptions], Format]
    prepare: Callable[[Iterator[Trace], ExportOptions, Say], Iterator[Trace]]
    replay: Callable[[Replay], str]
