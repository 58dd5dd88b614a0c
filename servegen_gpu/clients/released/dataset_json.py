"""The dataset half of a ServeGen client: which lengths its requests have, by slot of some hours.

``{"<start_s>": {"<field>": "<histogram text>"}}``; see `histogram_text` for the texts. A slot without requests has
empty histograms in every field, or no fields at all.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.released.files import ClientFile
from servegen_gpu.errors import ProfileError

EMPTY = "{}"
MAX_SECONDS_DIGITS = 12
FIX = "fix the file, or download it again"


class _RepeatedKeyError(ValueError):
    pass


def read_slots(file: ClientFile, fields: tuple[str, ...]) -> tuple[NDArray[np.int64], list[list[str]]]:
    """Slots of a dataset file that have requests.

    Parameters
    ----------
    file : ClientFile
    fields : tuple of str
        Fields to take, in this order; others are ignored.

    Returns
    -------
    start_s : int64[slots]
        Ascending.
    texts : list of list of str
        Histogram texts by slot and field.
    """
    starts, slots = [], []
    for key, slot in _objects(file):
        if not (key.isascii() and key.isdigit() and len(key) <= MAX_SECONDS_DIGITS):
            raise _fault(file, "slots by whole seconds >= 0", f"the key {key[:40]!r}")
        if not isinstance(slot, dict):
            raise _fault(file, "an object of fields", f"{type(slot).__name__}", key)
        texts = [slot.get(field, EMPTY if not slot else None) for field in fields]
        for field, text in zip(fields, texts, strict=True):
            if not isinstance(text, str):
                got = "nothing" if text is None else type(text).__name__
                raise _fault(file, f"a histogram as text for each of {', '.join(fields)}", f"{field}: {got}", key)
        empty = texts.count(EMPTY)
        if empty == len(fields):
            continue
        if empty:
            field = fields[texts.index(EMPTY)]
            raise _fault(file, "all fields of a slot to have requests, or none", f"{field}: {EMPTY}", key)
        starts.append(int(key))
        slots.append(texts)
    order = np.argsort(starts, kind="stable")
    start_s = np.array(starts, np.int64)[order]
    if (np.diff(start_s) == 0).any():
        twice = int(start_s[1:][np.diff(start_s) == 0][0])
        raise _fault(file, "each slot once", "it twice", str(twice))
    return start_s, [slots[i] for i in order]


def _objects(file: ClientFile) -> list[tuple[str, Any]]:
    """The slots of a JSON file as pairs."""
    try:
        content = json.loads(file.data, object_pairs_hook=_unique)
    except RecursionError:
        raise _fault(file, "slots of fields", "JSON nested too deeply") from None
    except _RepeatedKeyError as error:
        raise _fault(file, "each key once", f"the key {str(error)[:40]!r} twice") from None
    except json.JSONDecodeError as error:
        got = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise _fault(file, "complete JSON", got) from None
    except ValueError as error:
        raise _fault(file, "JSON in UTF-8", f"{error}") from None
    if not isinstance(content, dict):
        raise _fault(file, "an object of slots", f"{type(content).__name__}")
    return list(content.items())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, refused if a key comes twice."""
    made = dict(pairs)
    if len(made) != len(pairs):
        left = set(made)
        for key, _ in pairs:
            if key not in left:
                raise _RepeatedKeyError(key)
            left.remove(key)
    return made


def _fault(file: ClientFile, expected: str, got: str, slot: str = "") -> ProfileError:
    place = f"in {file.path} (client {file.client}{f', window {slot[:40]} s' if slot else ''})"
    return ProfileError(expected, f"{got} {place}", FIX)
