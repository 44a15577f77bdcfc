from __future__ import annotations

import json
import pickle
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from maypole.schemas.avro import Schema, schema_of
from maypole.schemas.codec import Reader, refusal
from maypole.schemas.errors import ContractRefused
from maypole.services.cli.event_types import shipped
from maypole.services.cli.examples import example, example_value
from maypole.services.cli.json_values import encode_json, to_json
from tests.unit.cli.everything import Colour, Everything, Inner

EVERYTHING = Everything(
    text="text", flag=True, count=-3, ratio=0.25, raw=b"\x00\xff", at=datetime(2026, 1, 31, 12, 0, 0, 5, UTC), day=date(2026, 1, 31),
    price=Decimal("12.34"), ident=UUID(int=7), colour=Colour.RED, inner=Inner(name="n"), many=(Inner(name="a"), Inner(name="b")),
    names={"a": 1, "b": 2}, maybe="x", maybe_inner=Inner(name="m"), maybe_many=("p",),
)  # fmt: skip


def _through(data: object) -> Everything:
    schema = schema_of(Everything)
    return Reader(schema, Everything).decode(encode_json(schema, 7, data))


def test_json_by_the_schema_alone_is_what_the_class_would_have_written() -> None:
    assert _through(json.loads(EVERYTHING.model_dump_json())) == EVERYTHING


def test_what_is_left_out_takes_its_default() -> None:
    data = json.loads(EVERYTHING.model_dump_json())
    for name in ("maybe", "maybe_inner", "maybe_many", "level", "fee", "since", "mark"):
        del data[name]
    assert _through(data) == EVERYTHING.model_copy(update={"maybe": None, "maybe_inner": None, "maybe_many": None})


def test_a_field_that_is_missing_is_called_missing_by_its_class_and_by_its_schema_alone() -> None:
    data = json.loads(EVERYTHING.model_dump_json())
    del data["text"]
    with pytest.raises(ContractRefused) as by_schema:
        encode_json(schema_of(Everything), 7, data)
    with pytest.raises(ValidationError) as invalid:
        Everything.model_validate_json(json.dumps(data))
    for refused in (by_schema.value, refusal(invalid.value, "test.everything")):
        assert re.search(r"text: expected a value.*, found nothing: the field is missing$", str(refused))
        assert str(pickle.loads(pickle.dumps(refused))) == str(refused)


def test_a_decoded_event_becomes_json_that_encodes_again() -> None:
    schema = schema_of(Everything)
    decoded = Reader(schema, None).decode(encode_json(schema, 7, json.loads(EVERYTHING.model_dump_json())))
    assert _through(json.loads(json.dumps(to_json(decoded)))) == EVERYTHING


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("text", 3, "text"),
        ("flag", 1, "flag"),
        ("count", True, "count"),
        ("count", 2**63, "count"),
        ("count", 1.5, "count"),
        ("ratio", "1", "ratio"),
        ("raw", "no base64!", "raw"),
        ("at", "2026-01-31T12:00:00", "at"),
        ("at", 5, "at"),
        ("day", "tomorrow", "day"),
        ("price", "1.234", "price"),
        ("price", "99999999", "price"),
        ("price", True, "price"),
        ("ident", "7", "ident"),
        ("colour", "green", "colour"),
        ("inner", {"name": 1}, "inner.name"),
        ("inner", {}, "inner.name"),
        ("many", [{"name": "a"}, {"name": "b", "extra": 1}], "many.1.extra"),
        ("many", {}, "many"),
        ("names", {"a": "one"}, "names.a"),
        ("maybe", 1, "maybe"),
        ("nowhere", 1, "nowhere"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(field: str, value: object, path: str) -> None:
    with pytest.raises(ContractRefused) as refused:
        _through({**json.loads(EVERYTHING.model_dump_json()), field: value})
    assert refused.value.field == path


def test_a_union_of_several_types_takes_the_first_that_fits() -> None:
    schema = Schema.parse({"type": "record", "name": "r", "fields": [{"name": "v", "type": ["null", "long", "string"]}]})
    reader = Reader(schema, None)
    for value in (None, 5, "five"):
        assert reader.decode(encode_json(schema, 1, {"v": value})) == {"v": value}
    with pytest.raises(ContractRefused):
        encode_json(schema, 1, {"v": 1.5})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(list(Everything.model_fields)), _JSON))
def test_any_json_is_encoded_or_refused(data: dict[str, Any]) -> None:
    try:
        _through({**json.loads(EVERYTHING.model_dump_json()), **data})
    except ContractRefused:
        pass


@pytest.mark.parametrize("name", sorted(shipped()))
def test_the_example_of_a_shipped_type_is_accepted_by_its_class(name: str) -> None:
    event_class = shipped()[name]
    event = event_class.model_validate_json(example(schema_of(event_class)))
    assert encode_json(schema_of(event_class), 1, example_value(schema_of(event_class)))
    assert event.event_type == name
