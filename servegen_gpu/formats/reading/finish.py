"""Numbers of a foreign trace as columns of ours: conversations and turns, histories, sizes of blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from servegen_gpu.blocks import distinct
from servegen_gpu.errors import OptionError
from servegen_gpu.formats.reading import sessions
from servegen_gpu.formats.reading.hashes import block_tokens
from servegen_gpu.formats.reading.layout import Layout
from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.schema import MAX_TOKENS

ORDER = (
    *("arrival_us", "client", "input_tokens", "output_tokens", "reason_tokens"),
    *("text_tokens", "image_tokens", "audio_tokens", "video_tokens"),
)
AMBIGUOUS = "dynamo"
"""Whose columns those of aiperf may be, too; a user who names the format makes it sure."""
LAST = ("conversation", "turn", "new_tokens", "hash_ids")


class Finisher:
    """Makes columns of a trace; slab after slab in order of time.

    Attributes
    ----------
    notes : list of str
        What was assumed.
    block : int or None
        Tokens of a block of ``hash_ids``.
    adds_history : bool
        Whether inputs of sessions are what is new.
    """

    def __init__(self, layout: Layout, source: str, says: str) -> None:
        self.layout, self.source = layout, source
        self.notes = [says] if says else []
        self.block: int | None = None
        self.adds_history = layout.sessions == "new"
        self.alone = False
        self._turns = sessions.Turns()

    def leaves_open(self, columns: dict[str, Any]) -> bool:
        """Whether these requests do not tell what inputs of sessions are."""
        session = columns.get("session", np.zeros(0, np.int64))
        some = session[session >= 0]
        return self.layout.name == AMBIGUOUS and not self.layout.sure and len(distinct(some)) == len(some)

    def begin(self, columns: dict[str, Any], alone: bool) -> None:
        """Look at the first requests, in order of time; `alone` says that no request of the file has a session."""
        self.alone = alone
        ids = columns.get("hash_ids")
        if isinstance(ids, Ragged):
            self.block, said = block_tokens(columns["input_tokens"], ids.lengths, self.layout.block_tokens)
            self.notes += [said] if said else []
        if self.layout.name == AMBIGUOUS and not self.layout.sure and not alone:
            found = ids if isinstance(ids, Ragged) else None
            self.adds_history, said = sessions.says_new(columns["session"], columns["input_tokens"], found)
            self.notes.append(f"{said} (format aiperf or dynamo says which)")
        if self.adds_history and ids is not None:
            self.notes.append("hash_ids left out, since they name no more than what is new")

    def columns(self, found: dict[str, Any]) -> dict[str, Any]:
        """dict[str, Any] of a trace, without arrivals."""
        columns = dict(found)
        rows = len(columns["client"]) if "client" in columns else len(next(iter(columns.values()), ()))
        columns["client"] = np.asarray(columns.get("client", np.zeros(rows)), np.int32)
        session = columns.pop("session", None)
        parent = columns.pop("parent", None)
        if isinstance(session, np.ndarray) and not self.alone:
            if isinstance(parent, np.ndarray):
                session = sessions.linked(session, parent)
            columns |= self._conversations(session, columns)
        if self.adds_history:
            columns.pop("hash_ids", None)
        return columns

    def _conversations(self, session: sessions.Ints, columns: dict[str, Any]) -> dict[str, Any]:
        if {"turn", "new_tokens"} <= set(columns):
            return {"conversation": session}
        given, output = np.asarray(columns["input_tokens"]), np.asarray(columns["output_tokens"])
        whole = given.astype(np.int64)
        if self.adds_history:
            whole = sessions.with_history(session, whole, output.astype(np.int64))
            if (wrong := np.flatnonzero(whole > MAX_TOKENS)).size:
                got = f"{int(whole[wrong[0]]):,} in a session of {self.source}"
                fix = "if its inputs are whole already, say so: format dynamo"
                raise OptionError(f"inputs with their history of at most {MAX_TOKENS:,} tokens", got, fix)
        turn, new = self._turns.add(session, whole, output)
        made = {"conversation": session, "turn": turn.astype(np.int32), "new_tokens": new.astype(np.int32)}
        return made | {"input_tokens": whole.astype(np.int32)}

    def said(self) -> list[str]:
        """Notes, with what only all requests tell."""
        short = self._turns.shortened
        ended = (
            [f"{short:,} later turns are shorter than the turn before: their new tokens are estimated"] if short else []
        )
        return self.notes + ended


def ordered(columns: dict[str, Any]) -> dict[str, Any]:
    """dict[str, Any] in the order of a trace, others behind the usual ones."""
    first = [name for name in ORDER if name in columns]
    last = [name for name in LAST if name in columns]
    others = [name for name in columns if name not in {*first, *last}]
    return {name: columns[name] for name in [*first, *others, *last]}
