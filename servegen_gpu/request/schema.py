"""What is drawn for a request, by category: one row a field, and everyone asks the rows.

>>> schema.of("multimodal").columns
('input_tokens', 'output_tokens', 'text_tokens', 'image_tokens', 'audio_tokens', 'video_tokens')
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import TypeVar

RATIO_STEPS = 501
"""A reason ratio is k/501: the left edges of 501 bins, as the released data has it."""

MODALITIES = ("image", "audio", "video")

INPUT, OUTPUT = 0, 1
MAX_TOKENS = 2**31 - 1
"""Of a request; columns of tokens have 32 bits."""
"""Lanes of the input (of its text, if it has items) and of the output: the same in every category."""

SCALAR_FIELDS = 5
"""Most fields that are drawn once per request; kernels/request.h has the same."""

Value = TypeVar("Value")


class Kind(Enum):
    """What a field is."""

    ONCE = "a number, drawn once per request"
    RATIO = "a share of the output, k of k/501, drawn once per request"
    COUNT = "how many items of a modality a request has, drawn once per request"
    ITEM = "tokens of one item, drawn for each"


@dataclass(frozen=True)
class Field:
    """A field of a request.

    Attributes
    ----------
    name : str
    kind : Kind
    column : str
        What comes of it in a trace; empty for a count, which is the length of a list.
    modality : str
        Of a count or an item.
    default : int or None
        What it is for a client, profile or trace that says nothing of it; None if that is refused.
    lane : int
        Its place among the fields of the category: which random word and which table it has.
    """

    name: str
    kind: Kind
    column: str
    modality: str = ""
    default: int | None = None
    lane: int = -1

    @property
    def unit(self) -> int:
        """What a value of its table is divided by."""
        return RATIO_STEPS if self.kind is Kind.RATIO else 1


@dataclass(frozen=True)
class Items:
    """A modality: how many items a request has, and the tokens of each."""

    modality: str
    count: Field
    item: Field


@dataclass(frozen=True)
class Schema:
    """The fields of a category.

    Attributes
    ----------
    category : str
    fields : tuple of Field
        In the order of their lanes, those that are drawn once first: part of the random stream, never reordered.
    columns : tuple of str
        What comes out besides arrivals and clients, in the order of a trace.
    """

    category: str
    fields: tuple[Field, ...]
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(replace(f, lane=lane) for lane, f in enumerate(self.fields)))
        assert len(self.scalars) <= SCALAR_FIELDS
        assert self.fields[: len(self.scalars)] == self.scalars
        assert self.fields[OUTPUT].name == "output_tokens"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all fields."""
        return tuple(f.name for f in self.fields)

    @cached_property
    def scalars(self) -> tuple[Field, ...]:
        """Fields that are drawn once per request."""
        return tuple(f for f in self.fields if f.kind is not Kind.ITEM)

    @cached_property
    def ratio(self) -> Field | None:
        """The share of the output that becomes tokens, if there is one."""
        return next((f for f in self.fields if f.kind is Kind.RATIO), None)

    @cached_property
    def items(self) -> tuple[Items, ...]:
        """Modalities whose items are in the input; then `total` is the sum of the input's text and of all items."""
        of = {(f.modality, f.kind): f for f in self.fields}
        return tuple(Items(m, of[m, Kind.COUNT], of[m, Kind.ITEM]) for m in MODALITIES if (m, Kind.COUNT) in of)

    @property
    def total(self) -> str:
        """Column of all tokens of the input."""
        return "input_tokens"

    def __getitem__(self, name: str) -> Field:
        """A field by its name."""
        return self.fields[self.names.index(name)]

    def is_list(self, column: str) -> bool:
        """Whether a column has a list of items in every row."""
        return any(column == items.item.column for items in self.items)

    def in_order(self, columns: Mapping[str, Value]) -> dict[str, Value]:
        """The columns of the category among others, in the order of a trace."""
        return {name: columns[name] for name in self.columns}


def _once(name: str) -> Field:
    return Field(name, Kind.ONCE, name)


def _items(kind: Kind) -> list[Field]:
    """Counts or items of all modalities: none where nothing is said."""
    if kind is Kind.COUNT:
        return [Field(f"{m}_count", kind, "", m, default=0) for m in MODALITIES]
    return [Field(f"{m}_tokens", kind, f"{m}_tokens", m, default=0) for m in MODALITIES]


_INPUT, _OUTPUT = _once("input_tokens"), _once("output_tokens")

SCHEMAS = {
    schema.category: schema
    for schema in (
        Schema("language", (_INPUT, _OUTPUT), ("input_tokens", "output_tokens")),
        Schema(
            "reason",
            (_INPUT, _OUTPUT, Field("reason_ratio", Kind.RATIO, "reason_tokens")),
            ("input_tokens", "output_tokens", "reason_tokens"),
        ),
        Schema(
            "multimodal",
            (_once("text_tokens"), _OUTPUT, *_items(Kind.COUNT), *_items(Kind.ITEM)),
            ("input_tokens", "output_tokens", "text_tokens", *(f"{m}_tokens" for m in MODALITIES)),
        ),
    )
}

TURN_FIELDS = max(len(schema.scalars) for schema in SCHEMAS.values() if not schema.items)
"""Most fields of a request without items; kernels/request.h has the same."""

FIELDS = {name: schema.names for name, schema in SCHEMAS.items()}
"""Names of the fields of a request by category, in the order of their lanes."""

COLUMNS = tuple(dict.fromkeys(column for schema in SCHEMAS.values() for column in schema.columns))
"""Columns of all categories, in the order of a trace."""

KINDS = {field.name: field.kind for schema in SCHEMAS.values() for field in schema.fields}
"""What a field is, whatever its category."""


def of(category: str) -> Schema:
    """The schema of a category."""
    return SCHEMAS[category]


def category_of(names: Container[str], of_columns: bool = False) -> str:
    """The category of which a field (or column) is that no other has; the first if there is none."""
    every = {name: schema.columns if of_columns else schema.names for name, schema in SCHEMAS.items()}
    for category, own in every.items():
        others = {name for other, of_other in every.items() if other != category for name in of_other}
        if any(name in names for name in own if name not in others):
            return category
    return next(iter(SCHEMAS))


def scalar_field_count(category: str) -> int:
    """How many leading fields of a category are drawn once per request."""
    return len(of(category).scalars)
