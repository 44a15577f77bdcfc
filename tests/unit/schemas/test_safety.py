"""Schemas from elsewhere: which are refused, and with which path."""

from __future__ import annotations

import json
from typing import Any

import pytest

from maypole.schemas.avro import Schema
from maypole.schemas.errors import UnsafeSchema
from maypole.schemas.safety import DEPTH_MAX, TEXT_BYTES_MAX


def record(name: str, *types: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": f"f{index}", "type": declared} for index, declared in enumerate(types)]}


def nested(levels: int) -> Any:
    declared: Any = "int"
    for _ in range(levels):
        declared = {"type": "array", "items": declared}
    return declared


def doubling(levels: int) -> dict[str, Any]:
    """A few lines that stand for 2^levels types once the references are followed."""
    fields: list[Any] = [record("R0", "int", "int")]
    fields += [record(f"R{level}", f"R{level - 1}", f"R{level - 1}") for level in range(1, levels)]
    return record("Root", *fields)


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        (record("R", ["null", "R"]), r"schema\.f0\[1\]: R contains itself"),
        (record("R", record("S", ["null", {"type": "array", "items": "R"}])), r"schema\.f0\.f0\[1\]\.items: R contains itself"),
        (record("R", "null"), r"schema\.f0: null takes no bytes"),
        (record("R", {"type": "map", "values": "null"}), r"schema\.f0\.values: null takes no bytes"),
        (record("R", {"type": "array", "items": record("Empty")}), r"schema\.f0\.items: a record without fields"),
        (record("R", {"type": "fixed", "name": "F", "size": 0}), r"schema\.f0: expected a fixed size"),
        (record("R", {"type": "fixed", "name": "F", "size": 2**40}), r"schema\.f0: expected a fixed size"),
        (record("R", {"type": "fixed", "name": "F", "size": True}), r"schema\.f0: expected a fixed size"),
        (record("R", nested(DEPTH_MAX + 1)), f"at most {DEPTH_MAX} levels"),
        (doubling(20), "at most 2000 types"),
        (record("R", *["int"] * 3000), "at most 2000 types"),
        (record("R", "Unknown"), "declared before it is used"),
        (record("R", record("S", "int"), record("S", "int")), "S is declared twice"),
        (record("R", []), "union of different types"),
        (record("R", ["int", "int"]), "union of different types"),
        (record("R", ["null", ["int"]]), "directly inside a union"),
        (record("no name", "int"), "letters, digits and underscores"),
        ({"type": "record", "name": "R"}, "list of fields"),
        ({"type": "record", "name": "R", "fields": [{"name": "a"}]}, r"schema\.a: expected an Avro schema, found None"),
        ({"type": "record", "name": "R", "fields": [{"name": "a b", "type": "int"}]}, "expected a field with a name"),
        ({"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}] * 2}, r"schema\.a: is declared twice"),
        ({"type": "enum", "name": "E", "symbols": []}, "different symbols"),
        ({"type": "enum", "name": "E", "symbols": ["A", "A"]}, "different symbols"),
        ({"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}, "default among the symbols"),
        ({}, "expected an Avro schema"),
        ("{", "expected a schema in JSON"),
        ("[" * 100_000, "RecursionError|levels"),
        ("x" * (TEXT_BYTES_MAX + 1), "at most"),
        (json.dumps(record("R", nested(20_000 // 100))), "levels"),
    ],
)
def test_a_schema_outside_the_safe_subset_is_refused_naming_the_path(definition: Any, reason: str) -> None:
    with pytest.raises(UnsafeSchema, match=reason):
        Schema.parse(definition)


def test_depth_counts_through_references() -> None:
    chain = [record("R0", "int")] + [record(f"R{level}", f"R{level - 1}") for level in range(1, DEPTH_MAX + 2)]

    with pytest.raises(UnsafeSchema, match=f"at most {DEPTH_MAX} levels"):
        Schema.parse(record("Root", *chain))


@pytest.mark.parametrize("written", ["string", '"string"', '{"type": "string"}', {"type": {"type": "string"}}])
def test_one_schema_written_differently_is_one_schema(written: Any) -> None:
    assert Schema.parse(written).canonical == '"string"'


def test_the_canonical_text_keeps_what_readers_act_on_and_leaves_out_the_rest() -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
    field = {"name": "a", "type": decimal, "default": "\x00", "aliases": ["b"], "doc": "x", "order": "ignore"}

    schema = Schema.parse({"doc": "y", "fields": [field], "namespace": "n", "name": "R", "type": "record", "aliases": ["Q"], "owner": "me"})

    assert json.loads(schema.canonical) == {
        "name": "n.R",
        "type": "record",
        "fields": [{"name": "a", "type": decimal, "default": "\x00", "aliases": ["b"]}],
        "aliases": ["n.Q"],
    }
    assert schema.fullname == "n.R"


def test_a_named_type_is_declared_once_and_named_afterwards() -> None:
    schema = Schema.parse(record("R", {"type": "enum", "name": "E", "symbols": ["A"]}, "E"))

    assert Schema.parse(schema.canonical) == schema
    assert schema.canonical.count('"symbols"') == 1


@pytest.mark.parametrize(
    "logical",
    [
        {"type": "bytes", "logicalType": "decimal"},
        {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3},
        {"type": "string", "logicalType": "timestamp-micros"},
        {"type": "long", "logicalType": "something-new"},
    ],
)
def test_a_logical_type_that_makes_no_sense_is_ignored_as_the_specification_says(logical: dict[str, Any]) -> None:
    assert json.loads(Schema.parse(logical).canonical) == logical["type"]
