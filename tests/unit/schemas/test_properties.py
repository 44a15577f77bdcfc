"""Any value of any supported model survives the round trip; any bytes are a value or one of the declared errors, in bounded memory."""

import json
import tracemalloc
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from itertools import count
from typing import Annotated, Any, NamedTuple, Optional
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from maypole.schemas.archive import shipped_events
from maypole.schemas.avro import Schema, schema_of
from maypole.schemas.codec import Reader, Writer, schema_id_of
from maypole.schemas.errors import ContractRefused, Undecodable, UnsafeSchema
from maypole.schemas.event import Event, Value
from maypole.schemas.shape import INT64_MAX, INT64_MIN
from tests.unit.schemas.test_event import Whole, whole

MEMORY_MAX = 40_000_000
QUICK = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

_names = count()


class Family(NamedTuple):
    """A supported type and the values it takes."""

    annotation: Any
    values: st.SearchStrategy[Any]


class Mood(StrEnum):
    GOOD = "GOOD"
    bad = "b_2"


ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.just(UTC) | ZONES)  # noqa: DTZ001
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)

LEAVES = (
    Family(str, TEXT),
    Family(Annotated[str, Field(max_length=5)], st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    Family(bool, st.booleans()),
    Family(int, st.integers(INT64_MIN, INT64_MAX)),
    Family(Annotated[int, Field(gt=0)], st.integers(1, INT64_MAX)),
    Family(float, st.floats(allow_nan=False, allow_infinity=False)),
    Family(bytes, st.binary(max_size=40)),
    Family(datetime, TIMES),
    Family(date, st.dates()),
    Family(Annotated[Decimal, Field(max_digits=12, decimal_places=3)], st.decimals(-(10**8), 10**8, places=3)),
    Family(Annotated[Decimal, Field(max_digits=38, decimal_places=0)], st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal)),
    Family(UUID, st.uuids()),
    Family(Mood, st.sampled_from(Mood)),
)


def sequence_of(item: Any) -> Any:
    return tuple[item, ...]


def mapping_of(item: Any) -> Any:
    return Mapping[str, item]


def larger(inner: st.SearchStrategy[Family]) -> st.SearchStrategy[Family]:
    sequences = inner.map(lambda f: Family(sequence_of(f.annotation), st.lists(f.values, max_size=4).map(tuple)))
    mappings = inner.map(lambda f: Family(mapping_of(f.annotation), st.dictionaries(TEXT, f.values, max_size=4)))
    optionals = inner.map(lambda f: Family(Optional[f.annotation], st.none() | f.values))  # noqa: UP045
    return sequences | mappings | optionals | st.lists(inner, min_size=1, max_size=3).map(nested)


def nested(families: list[Family]) -> Family:
    annotations = {f"n{index}": family.annotation for index, family in enumerate(families)}
    declared: Any = type(f"Nested{next(_names)}", (Value,), {"__annotations__": annotations, "__module__": __name__})
    return Family(
        declared, st.fixed_dictionaries({f"n{i}": f.values for i, f in enumerate(families)}).map(lambda fields: declared(**fields))
    )


FAMILIES = st.recursive(st.sampled_from(LEAVES), larger, max_leaves=5)


def declare(families: list[Family]) -> type[Event]:
    annotations = {f"f{index}": family.annotation for index, family in enumerate(families)}
    return type(f"Made{next(_names)}", (Event,), {"__annotations__": annotations, "__module__": __name__}, type="test.made")


@QUICK
@given(st.data())
def test_any_value_of_any_model_survives_the_round_trip(data: st.DataObject) -> None:
    families = data.draw(st.lists(FAMILIES, min_size=1, max_size=4))
    event_class = declare(families)
    event = event_class(**{f"f{index}": data.draw(family.values) for index, family in enumerate(families)})

    encoded = Writer(event_class, 7).encode(event)

    assert Reader(schema_of(event_class), event_class).decode(encoded) == event
    assert Reader(schema_of(event_class), None).decode(encoded) is not None


@QUICK
@given(st.data())
def test_any_default_of_any_model_is_what_a_reader_fills_in(data: st.DataObject) -> None:
    families = data.draw(st.lists(FAMILIES, min_size=1, max_size=3))
    defaults = {f"f{index}": data.draw(family.values) for index, family in enumerate(families)}
    annotations = {f"f{index}": family.annotation for index, family in enumerate(families)}
    body = {"__annotations__": {"kept": int, **annotations}, "__module__": __name__, **defaults}
    newer: Any = type(f"Made{next(_names)}", (Event,), body, type="test.made")
    older: Any = type(f"Made{next(_names)}", (Event,), {"__annotations__": {"kept": int}, "__module__": __name__}, type="test.made")

    assert Reader(schema_of(older), newer).decode(Writer(older, 7).encode(older(kept=1))) == newer(kept=1)


def outcome(reader: Reader[Any], value: bytes) -> Any:
    try:
        return reader.decode(value)
    except (Undecodable, ContractRefused) as error:
        return str(error)


EVENTS: tuple[type[Event], ...] = (*shipped_events(), Whole)
READERS: list[Reader[Any]] = [Reader(schema_of(event), event) for event in EVENTS] + [Reader(schema_of(event), None) for event in EVENTS]


@QUICK
@given(st.binary(max_size=400))
def test_any_bytes_are_a_value_or_a_declared_error(data: bytes) -> None:
    tracemalloc.start()
    try:
        for reader in READERS:
            outcome(reader, data)
            outcome(reader, b"\x00\x00\x00\x00\x07" + data)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_MAX
    finally:
        tracemalloc.stop()


@QUICK
@given(st.data())
def test_any_damage_to_a_value_is_a_value_or_a_declared_error(data: st.DataObject) -> None:
    value = bytearray(Writer(Whole, 7).encode(whole(note="note", tags=("x", "y"))))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(5, len(value) - 1))] = data.draw(st.integers(0, 255))

    outcome(Reader(schema_of(Whole), Whole), bytes(value))


@QUICK
@given(st.binary(max_size=12))
def test_any_bytes_have_a_schema_id_or_a_declared_error(data: bytes) -> None:
    try:
        assert 0 <= schema_id_of(data) < 2**32
    except Undecodable as error:
        assert "expected" in str(error)  # noqa: PT017 - either outcome is right


WORDS = st.sampled_from(
    ["null", "boolean", "int", "long", "float", "double", "bytes", "string", "N", "M", "", "array", "record", "enum", "date"]
)
SIZES = st.integers(-1, 70_000) | st.sampled_from([16, 2**31, 2**63])
LOGICAL = st.sampled_from(["date", "time-micros", "timestamp-millis", "timestamp-micros", "uuid", "decimal", "unknown"])


def larger_definition(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    name = st.sampled_from(["N", "M", "P", "a.Q", "9"])
    field = st.fixed_dictionaries(
        {"name": st.sampled_from(["a", "b", "c"]), "type": inner}, optional={"default": st.none() | st.integers() | TEXT}
    )
    return st.one_of(
        st.lists(inner, max_size=4),
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries({"type": st.just("map"), "values": inner}),
        st.fixed_dictionaries({"type": st.just("record"), "name": name, "fields": st.lists(field, max_size=3)}),
        st.fixed_dictionaries({"type": st.just("enum"), "name": name, "symbols": st.lists(st.sampled_from(["A", "B", "9"]), max_size=3)}),
        st.fixed_dictionaries({"type": st.just("fixed"), "name": name, "size": SIZES}, optional={"logicalType": LOGICAL}),
        st.fixed_dictionaries({"type": inner | WORDS}, optional={"logicalType": LOGICAL, "precision": SIZES, "scale": SIZES}),
    )


DEFINITIONS = st.recursive(WORDS | st.none() | st.integers(), larger_definition, max_leaves=12)


@settings(QUICK, max_examples=400)
@given(DEFINITIONS, st.binary(max_size=60))
def test_any_writers_schema_is_refused_or_reads_any_bytes_safely(definition: Any, data: bytes) -> None:
    try:
        schema = Schema.parse(definition)
    except UnsafeSchema:
        return
    assert Schema.parse(schema.canonical) == schema
    outcome(Reader(schema, None), b"\x00\x00\x00\x00\x07" + data)
    try:
        reader = Reader(schema, Whole)
    except Undecodable:
        return
    outcome(reader, b"\x00\x00\x00\x00\x07" + data)


@QUICK
@given(st.text(max_size=60) | DEFINITIONS.map(json.dumps))
def test_any_text_is_a_schema_or_is_refused(text: str) -> None:
    try:
        Schema.parse(text)
    except UnsafeSchema as error:
        assert str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("size", [4_000, 60_000, 900_000])
def test_bytes_that_claim_millions_of_items_cost_little(size: int) -> None:
    claims = b"\x80\x89\x7a" + bytes(size)
    tracemalloc.start()
    try:
        for reader in READERS:
            outcome(reader, b"\x00\x00\x00\x00\x07" + claims)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_MAX
    finally:
        tracemalloc.stop()
