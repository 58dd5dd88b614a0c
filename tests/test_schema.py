"""The rows of fields and what is asked of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from profiles import tiny_pool

import servegen_gpu as sg
from servegen_gpu.request.columns import Ragged, empty_columns
from servegen_gpu.request.schema import KINDS, MODALITIES, OUTPUT, SCHEMAS, Field, Kind, Schema, category_of, of


@pytest.mark.parametrize("category", SCHEMAS)
def test_columns_come_out_as_the_schema_says(category):
    schema, trace = of(category), sg.generate(tiny_pool(category), scale=1, duration=1200)
    assert tuple(trace)[2:] == schema.columns
    assert tuple(empty_columns(category)) == tuple(trace)
    for name in schema.columns:
        assert (
            isinstance(trace[name], Ragged) == schema.is_list(name) == isinstance(empty_columns(category)[name], Ragged)
        )
    assert [field.lane for field in schema.fields] == list(range(len(schema.fields)))
    assert [schema[name] for name in schema.names] == list(schema.fields)


def test_what_a_request_is_made_of():
    assert of("language").ratio is None
    assert of("language").items == ()
    ratio = of("reason").ratio
    assert ratio is not None
    assert (ratio.name, ratio.column, ratio.lane, ratio.unit) == ("reason_ratio", "reason_tokens", 2, 501)
    items = of("multimodal").items
    assert tuple(each.modality for each in items) == MODALITIES
    assert [(each.count.lane, each.item.lane) for each in items] == [(2, 5), (3, 6), (4, 7)]
    assert {KINDS[each.count.name] for each in items} == {Kind.COUNT}


def test_the_category_is_known_by_a_field_or_column_of_its_own():
    assert category_of({"input_tokens", "output_tokens"}) == "language"
    assert category_of({"output_tokens", "reason_ratio"}) == "reason"
    assert category_of({"image_count"}) == "multimodal"
    assert category_of({"input_tokens", "image_tokens"}, of_columns=True) == "multimodal"
    assert category_of({"input_tokens", "reason_tokens"}, of_columns=True) == "reason"
    assert category_of({"input_tokens", "reason_ratio"}, of_columns=True) == "language"


def test_a_schema_that_kernels_could_not_draw_is_refused():
    language, more = of("language"), [Field(f"f{i}", Kind.ONCE, f"f{i}") for i in range(4)]
    assert len(replace(language, fields=(*language.fields, *more[:3])).scalars) == 5
    with pytest.raises(AssertionError):
        replace(language, fields=(*language.fields, *more))
    with pytest.raises(AssertionError):  # what is drawn for each item comes last
        replace(language, fields=(Field("x", Kind.ITEM, "x", "image"), *language.fields))
    with pytest.raises(AssertionError):
        Schema("swapped", language.fields[::-1], language.columns)
    assert language.fields[OUTPUT].name == "output_tokens"
