"""Values that are read, values that are refused, and how much memory a few bytes may cost."""

import json
import struct
import tracemalloc
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastavro import parse_schema, schemaless_writer
from pydantic import Field, field_validator

from maypole.schemas.avro import Schema, schema_of
from maypole.schemas.codec import ITEMS_MAX, VALUE_BYTES_MAX, Reader, Writer, schema_id_of
from maypole.schemas.errors import ContractRefused, Undecodable, UnsafeSchema
from maypole.schemas.event import Event, Value
from maypole.schemas.readonly import ReadOnly
from tests.unit.schemas.test_event import Whole, whole


class Scored(Event, type="test.scored"):
    name: Annotated[str, Field(min_length=1)]
    confidence: Annotated[float, Field(ge=0, le=1)]
    limit: int | None = None


class Point(Value):
    x: float


class Cloud(Event, type="test.cloud"):
    points: tuple[Point, ...]
    names: Mapping[str, str] = {}


def reader(event_class: type[Event], **limits: int) -> Reader[Any]:
    return Reader(schema_of(event_class), event_class, **limits)


def value(definition: Any, datum: Any) -> bytes:
    """What a foreign producer writes with fastavro."""
    out = BytesIO(b"\x00\x00\x00\x00\x07")
    out.seek(5)
    schemaless_writer(out, parse_schema(definition), datum)
    return out.getvalue()


def record(*fields: tuple[str, Any], **rest: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Foreign", "fields": [{"name": name, "type": declared} for name, declared in fields], **rest}


def test_every_type_survives_the_round_trip() -> None:
    event = whole(note="n", spare=Whole.model_fields["first"].default)

    assert reader(Whole).decode(Writer(Whole, 7).encode(event)) == event


def test_a_value_begins_with_a_zero_byte_and_the_schema_id() -> None:
    encoded = Writer(Scored, 1_234_567_890).encode(Scored(name="a", confidence=0.5))

    assert encoded[:5] == b"\x00" + struct.pack(">I", 1_234_567_890)
    assert schema_id_of(encoded) == 1_234_567_890


def test_encoding_leaves_the_event_as_it_is() -> None:
    event = whole()
    Writer(Whole, 7).encode(event)

    assert event == whole()
    assert event.at == datetime(2026, 5, 1, tzinfo=UTC)


def test_a_foreign_writer_of_the_committed_schema_writes_the_same_bytes() -> None:
    event = Scored(name="a", confidence=0.5, limit=3)

    assert Writer(Scored, 7).encode(event) == value(Scored.avro_definition, event.model_dump())


@pytest.mark.parametrize("broken", [None, b"", b"\x00\x00\x00\x07", b"\x01\x00\x00\x00\x07abc", b"{}"])
def test_a_value_without_a_schema_id_is_undecodable(broken: bytes | None) -> None:
    with pytest.raises(Undecodable, match="expected a value of a zero byte"):
        schema_id_of(broken)


def test_every_truncation_is_undecodable() -> None:
    encoded = Writer(Whole, 7).encode(whole())
    for length in range(len(encoded)):
        with pytest.raises(Undecodable):
            reader(Whole).decode(encoded[:length])


def test_left_over_bytes_are_undecodable() -> None:
    with pytest.raises(Undecodable, match="1 bytes are left over"):
        reader(Scored).decode(Writer(Scored, 7).encode(Scored(name="a", confidence=0.5)) + b"\x00")


def test_a_broken_rule_names_field_value_and_rule() -> None:
    wrong = value(Scored.avro_definition, {"name": "a", "confidence": 1.5, "limit": None})

    with pytest.raises(ContractRefused) as caught:
        reader(Scored).decode(wrong)

    assert (caught.value.field, caught.value.value, caught.value.rule) == ("confidence", 1.5, "less than or equal to 1")
    assert str(caught.value) == "test.scored: confidence: expected less than or equal to 1, found 1.5"


def test_a_broken_rule_deep_inside_names_the_way_to_it() -> None:
    wrong = value(Cloud.avro_definition, {"points": [{"x": 0.0}, {"x": float("nan")}], "names": {}})

    with pytest.raises(ContractRefused) as caught:
        reader(Cloud).decode(wrong)

    assert (caught.value.field, caught.value.rule) == ("points.1.x", "a finite number")


def test_several_broken_rules_are_counted() -> None:
    with pytest.raises(ContractRefused, match=r"name: expected .*found '' \(and 1 more\)"):
        reader(Scored).decode(value(Scored.avro_definition, {"name": "", "confidence": -1.0, "limit": None}))


def test_a_validator_that_trips_refuses_the_event() -> None:
    class Tripping(Event, type="test.tripping"):
        a: int

        @field_validator("a")
        @classmethod
        def inverted(cls, value: int) -> int:
            return 1 // value

    with pytest.raises(ContractRefused, match="ZeroDivisionError"):
        reader(Tripping).decode(value(Tripping.avro_definition, {"a": 0}))


def test_without_a_class_the_value_is_a_mapping_that_nobody_can_change() -> None:
    found = Reader(schema_of(Whole), None).decode(Writer(Whole, 7).encode(whole()))

    assert isinstance(found, ReadOnly)
    assert found["at"] == datetime(2026, 5, 1, tzinfo=UTC)
    assert found["day"] == date(2026, 5, 1)
    assert found["price"] == Decimal("1.50")
    assert found["key"] == UUID(int=7)
    assert found["region"] == "NORTH"
    assert isinstance(found["part"], ReadOnly)
    assert isinstance(found["parts"], tuple)
    assert isinstance(found["parts"][0], ReadOnly)
    assert isinstance(found["labels"], ReadOnly)
    assert hash(found)


def test_an_older_writer_is_read_with_the_readers_defaults() -> None:
    older = record(("name", "string"), ("confidence", "float")) | {"name": "TestScored"}

    found = Reader(Schema.parse(older), Scored).decode(value(older, {"name": "a", "confidence": 0.5}))

    assert found == Scored(name="a", confidence=0.5)


def test_a_newer_writers_fields_are_left_out_and_still_read_to_the_last_byte() -> None:
    newer = record(("name", "string"), ("extra", {"type": "array", "items": "double"}), ("confidence", "double")) | {"name": "TestScored"}
    encoded = value(newer, {"name": "a", "extra": [1.0, 2.0], "confidence": 0.5})
    read = Reader(Schema.parse(newer), Scored)

    assert read.decode(encoded) == Scored(name="a", confidence=0.5)
    with pytest.raises(Undecodable):
        read.decode(encoded[:-1])


def test_defaults_of_one_event_do_not_leak_into_the_next() -> None:
    older = record(("points", {"type": "array", "items": Cloud.avro_definition["fields"][0]["type"]["items"]})) | {"name": "TestCloud"}
    read = Reader(Schema.parse(older), Cloud)
    first, second = (read.decode(value(older, {"points": []})) for _ in range(2))

    assert first.names == second.names == {}
    with pytest.raises(TypeError):
        first.names["x"] = "y"  # type: ignore[index]


def test_a_writer_that_can_never_be_read_is_told_when_the_reader_is_made() -> None:
    with pytest.raises(Undecodable, match=r"TestScored\.name has no default"):
        Reader(Schema.parse(record(("confidence", "double")) | {"name": "TestScored"}), Scored)


def test_a_symbol_that_the_reader_does_not_know_is_undecodable_and_named() -> None:
    wider = json.loads(json.dumps(Whole.avro_definition).replace('"SOUTH"]', '"SOUTH", "WEST"]'))
    datum = Reader(schema_of(Whole), None).decode(Writer(Whole, 7).encode(whole()))

    with pytest.raises(Undecodable, match="found WEST"):
        Reader(Schema.parse(wider), Whole).decode(value(wider, {**datum, "region": "WEST"}))


def test_each_branch_of_a_foreign_union_keeps_its_meaning() -> None:
    colour = {"type": "enum", "name": "Colour", "symbols": ["RED"]}
    foreign = record(
        ("a", ["null", "string", colour, {"type": "long", "logicalType": "timestamp-millis"}, {"type": "map", "values": "int"}])
    )
    read = Reader(Schema.parse(foreign), None)

    def decoded(datum: Any) -> Any:
        return read.decode(value(foreign, {"a": datum}))["a"]

    assert decoded(None) is None
    assert decoded(("string", "RED")) == "RED"
    assert decoded(("Colour", "RED")) == "RED"
    assert decoded(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2026, 1, 1, tzinfo=UTC)
    assert decoded({"x": 1}) == {"x": 1}


@pytest.mark.parametrize(
    ("declared", "data"),
    [
        ({"type": "long", "logicalType": "timestamp-micros"}, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ({"type": "int", "logicalType": "date"}, b"\xfe\xff\xff\xff\x0f"),
        ({"type": "int", "logicalType": "time-millis"}, b"\xfe\xff\xff\xff\x0f"),
        ({"type": "string", "logicalType": "uuid"}, b"\x02x"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 0}, b"\x04\x7f\xff"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x02"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x01"),
        ("string", b"\x02\xff"),
        ("string", b"\x01"),
        ("bytes", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (["null", "string"], b"\x08"),
        ({"type": "array", "items": "double"}, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ({"type": "array", "items": "boolean"}, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00"),
        ({"type": "map", "values": "int"}, b"\x02\x00"),
        ("long", b"\xff" * 20),
    ],
)
@pytest.mark.parametrize("event_class", [None, Scored])
def test_poison_is_undecodable(declared: Any, data: bytes, event_class: type[Event] | None) -> None:
    """Also when the reader's class does not know the field and only has to get past it."""
    foreign = record(("name", "string"), ("confidence", "double"), ("poison", declared)) | {"name": "TestScored"}
    encoded = value(record(("name", "string"), ("confidence", "double")), {"name": "a", "confidence": 0.5}) + data
    read: Reader[Any] = Reader(Schema.parse(foreign), event_class)
    logical_only = isinstance(declared, dict) and ("logicalType" in declared or declared["type"] == "enum")

    if event_class is not None and logical_only:
        assert read.decode(encoded) == Scored(name="a", confidence=0.5)  # the bytes are in order, and nobody asks what they mean
        return
    with pytest.raises(Undecodable):
        read.decode(encoded)


def test_a_value_over_the_limit_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(Undecodable, match=f"expected at most {VALUE_BYTES_MAX} bytes"):
        reader(Scored).decode(b"\x00\x00\x00\x00\x07" + bytes(VALUE_BYTES_MAX))
    with pytest.raises(Undecodable, match="expected at most 10 bytes"):
        reader(Scored, bytes_max=10).decode(Writer(Scored, 7).encode(Scored(name="a", confidence=0.5)))


def test_more_items_than_the_limit_are_refused_before_they_are_built() -> None:
    nested = record(("a", {"type": "array", "items": record(("b", {"type": "array", "items": "long"})) | {"name": "Inner"}}))
    many = ITEMS_MAX * 4
    encoded = b"\x00\x00\x00\x00\x07" + _long(many) + bytes(many) + b"\x00"
    read = Reader(Schema.parse(nested), None)
    tracemalloc.start()
    try:
        with pytest.raises(Undecodable, match=f"at most {ITEMS_MAX} items"):
            read.decode(encoded)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_large_value_within_the_limits_is_read() -> None:
    event = Cloud(points=tuple(Point(x=float(x)) for x in range(20_000)), names={str(n): "v" * 40 for n in range(2000)})
    encoded = Writer(Cloud, 7).encode(event)

    assert len(encoded) > ITEMS_MAX
    assert reader(Cloud).decode(encoded) == event


def test_the_worst_small_value_stays_within_bounds() -> None:
    nested = record(("a", {"type": "array", "items": record(("b", {"type": "array", "items": "long"})) | {"name": "Inner"}}))
    many = ITEMS_MAX - 10
    encoded = b"\x00\x00\x00\x00\x07" + _long(many) + bytes(many) + b"\x00"
    tracemalloc.start()
    try:
        Reader(Schema.parse(nested), None).decode(encoded)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("width", ["null", {"type": "fixed", "name": "F", "size": 0}, {"type": "record", "name": "R", "fields": []}])
def test_an_array_of_items_without_width_is_never_even_read(width: Any) -> None:
    with pytest.raises(UnsafeSchema, match=r"schema\.a\.items"):
        Schema.parse(record(("a", {"type": "array", "items": width})))


def _long(number: int) -> bytes:
    out = BytesIO()
    schemaless_writer(out, parse_schema("long"), number)
    return out.getvalue()
