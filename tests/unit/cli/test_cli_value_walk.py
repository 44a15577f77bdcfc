"""A value is read as far as it can be, and the byte and the field where it broke are named; what agents can read reads the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maypole.schemas.archive import shipped_events
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Reader, Writer
from maypole.schemas.errors import ContractRefused, Undecodable
from maypole.schemas.nodes import Array, Enum, Field, Fixed, Kind, Logical, Map, Node, Primitive, Record, Union
from maypole.services.cli.json_values import to_json
from maypole.services.cli.value_walk import walk
from tests.unit.cli.everything import Everything
from tests.unit.cli.test_cli_json_values import EVERYTHING

VALUE = Writer(Everything, 7).encode(EVERYTHING)
SCHEMA = schema_of(Everything)
READER = Reader(SCHEMA, None)
HEAD = bytes(5)
TEXT, LONG = Primitive(Kind.STRING), Primitive(Kind.LONG)


def record(**fields: Node) -> Record:
    return Record("R", (), tuple(Field(name, node) for name, node in fields.items()))


def test_what_can_be_read_is_what_the_codec_reads() -> None:
    data, broken = walk(SCHEMA.node, VALUE)
    assert broken is None
    assert to_json(data) == to_json(READER.decode(VALUE))


def test_a_value_that_is_cut_anywhere_breaks_at_its_end_and_keeps_what_was_before() -> None:
    whole: dict[str, Any] = to_json(READER.decode(VALUE))
    names = list(whole)
    for length in range(5, len(VALUE)):
        data, broken = walk(SCHEMA.node, VALUE[:length])
        assert broken is not None and broken.offset <= length
        at = names.index(broken.field.partition(".")[0])
        assert [to_json(data[name]) for name in names[:at]] == [whole[name] for name in names[:at]]
        assert set(data) <= set(names[: at + 1])


@pytest.mark.parametrize(
    ("node", "value", "read", "told"),
    [
        (record(a=TEXT, b=LONG), b"\x04hi", {"a": "hi"}, "byte 8, b: expected long, found 0 bytes before the end of the value"),
        (record(a=TEXT), b"\x08hi", {}, "byte 6, a: expected 4 bytes, found 2 bytes before the end of the value"),
        (record(a=TEXT), b"\x01", {}, "byte 5, a: expected a length of at least 0, found -1"),
        (record(a=TEXT), b"\x06h\xffi", {}, "byte 7, a: expected UTF-8 text, found ff 69 (invalid start byte)"),
        (record(a=TEXT), b"\x00\x00\x00", {"a": ""}, "byte 6, the value: expected the end of the value, found 2 more bytes"),
        (record(a=Array(record(b=TEXT))), b"\x04\x02x\x04x", {"a": [{"b": "x"}, {}]},
         "byte 9, a.1.b: expected 2 bytes, found 1 byte before the end of the value"),
        (record(a=Map(LONG)), b"\x02\x02k", {"a": {}}, "byte 8, a.k: expected long, found 0 bytes before the end of the value"),
        (record(a=Array(LONG)), b"\x80\x80\x80\x01", {"a": []}, "byte 5, a: expected at most 65536 items in a value, found 1048576"),
        (record(a=Union((Primitive(Kind.NULL), TEXT))), b"\x06", {}, "byte 5, a: expected a branch from 0 to 1 of a union, found 3"),
        (record(a=Enum("E", (), ("x", "y"))), b"\x04", {}, "byte 5, a: expected a symbol from 0 to 1 of enum E, found 2"),
        (record(a=Fixed("F", (), 4)), b"abc", {}, "byte 5, a: expected fixed F of 4 bytes, found 3 bytes before the end of the value"),
        (record(a=Primitive(Kind.DOUBLE)), b"abc", {}, "byte 5, a: expected double of 8 bytes, found 3 bytes before the end of the value"),
        (record(a=Primitive(Kind.INT)), b"\xff\xff\xff\xff\x7f", {}, "byte 5, a: expected int of 32 bits, found -17179869184"),
        (record(a=LONG), b"\xff" * 10, {}, "byte 5, a: expected long, found a number without an end"),
    ],
)  # fmt: skip
def test_where_it_broke_is_told_to_the_byte(node: Node, value: bytes, read: object, told: str) -> None:
    data, broken = walk(node, HEAD + value)
    assert (str(broken), data) == (told, read)


def test_a_date_beyond_the_calendar_breaks_at_its_field() -> None:
    day = Primitive(Kind.INT, Logical("date"))
    data, broken = walk(record(a=TEXT, day=day), HEAD + b"\x02x" + b"\xfe\xff\xff\xff\x0f")
    assert broken is not None
    assert (broken.field, broken.offset, broken.expected, data) == ("day", 7, "int as date", {"a": "x"})


@given(st.sampled_from([Everything, *shipped_events()]), st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_have_a_place_where_they_broke(event: Any, data: bytes) -> None:
    schema = schema_of(event)
    value = HEAD + data
    read, broken = walk(schema.node, value)
    try:
        decoded = to_json(Reader(schema, None).decode(value))
    except (Undecodable, ContractRefused):
        return  # the codec may be stricter where a person can still be shown something
    assert broken is None and repr(to_json(read)) == repr(decoded)


def test_blocks_that_tell_their_size_are_read_too() -> None:
    assert walk(record(a=Array(TEXT)), HEAD + b"\x01\x06\x04hi\x00") == ({"a": ["hi"]}, None)
