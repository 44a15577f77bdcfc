"""Pairs of schemas and whether data of the writer can be read by the reader.

Cases from "Schema Resolution" of the Apache Avro 1.12 specification. The unit tests hold our check to them, the contract
tests ask a real registry about the same pairs; where the two differ on purpose, the reason stands beside the pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NULLABLE = ["null", "string"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`differs` says why a registry judges otherwise; empty when it agrees."""

    name: str
    reader: Any
    writer: Any
    readable: bool
    path: str = ""
    differs: str = ""


def record(*fields: Any, name: str = "Case", **rest: Any) -> Any:
    return {"type": "record", "name": name, "namespace": "cases", "fields": list(fields), **rest}


def field(type_: Any, name: str = "a", **rest: Any) -> Any:
    return {"name": name, "type": type_, **rest}


def one(type_: Any, **rest: Any) -> Any:
    return record(field(type_, **rest))


def enum(*symbols: str, **rest: Any) -> Any:
    return {"type": "enum", "name": "Colour", "symbols": list(symbols), **rest}


def fixed(size: int, name: str = "Hash", **rest: Any) -> Any:
    return {"type": "fixed", "name": name, "size": size, **rest}


def decimal(precision: int, scale: int) -> Any:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def stamp(name: str) -> Any:
    return {"type": "long", "logicalType": name}


def array(items: Any) -> Any:
    return {"type": "array", "items": items}


def map_of(values: Any) -> Any:
    return {"type": "map", "values": values}


INNER = record(field("string", "x"), name="Inner")
WIDER_INNER = record(field("string", "x"), field("long", "y"), name="Inner")
DEFAULTED_INNER = record(field("string", "x"), field("long", "y", default=0), name="Inner")
UNSCALED = "the specification matches decimals by precision and scale; the registry compares the bytes underneath"
SAME_NUMBER = "the registry compares the numbers underneath and not what they count; read as the other they would be off by 1000"

VERDICTS: tuple[Verdict, ...] = (
    Verdict("the same schema", one("string"), one("string"), readable=True),
    Verdict("int is read as long", one("long"), one("int"), readable=True),
    Verdict("int is read as float", one("float"), one("int"), readable=True),
    Verdict("int is read as double", one("double"), one("int"), readable=True),
    Verdict("long is read as float", one("float"), one("long"), readable=True),
    Verdict("long is read as double", one("double"), one("long"), readable=True),
    Verdict("float is read as double", one("double"), one("float"), readable=True),
    Verdict("string is read as bytes", one("bytes"), one("string"), readable=True),
    Verdict("bytes are read as string", one("string"), one("bytes"), readable=True),
    Verdict("long is not read as int", one("int"), one("long"), readable=False, path="a"),
    Verdict("double is not read as float", one("float"), one("double"), readable=False, path="a"),
    Verdict("double is not read as long", one("long"), one("double"), readable=False, path="a"),
    Verdict("boolean is not read as int", one("int"), one("boolean"), readable=False, path="a"),
    Verdict("string is not read as long", one("long"), one("string"), readable=False, path="a"),
    Verdict(
        "a field the reader does not know is ignored",
        one("string"), record(field("string"), field("long", "b")), readable=True,
    ),
    Verdict("a new field with a default", record(field("string"), field("long", "b", default=1)), one("string"), readable=True),
    Verdict(
        "a new optional field with a default",
        record(field("string"), field(NULLABLE, "b", default=None)), one("string"), readable=True,
    ),
    Verdict(
        "a new field without a default",
        record(field("string"), field("long", "b")), one("string"), readable=False, path="b",
    ),
    Verdict(
        "a new optional field without a default",
        record(field("string"), field(NULLABLE, "b")), one("string"), readable=False, path="b",
    ),
    Verdict(
        "fields in another order",
        record(field("long", "b"), field("string")), record(field("string"), field("long", "b")), readable=True,
    ),
    Verdict("a renamed field with an alias", one("string", name="b", aliases=["a"]), one("string"), readable=True),
    Verdict("a renamed field without an alias", one("string", name="b"), one("string"), readable=False, path="b"),
    Verdict("a field that becomes optional", one(NULLABLE), one("string"), readable=True),
    Verdict("an optional field that becomes required", one("string"), one(NULLABLE), readable=False, path="a"),
    Verdict("a wider union", one(["null", "string", "long"]), one(NULLABLE), readable=True),
    Verdict("a narrower union", one(NULLABLE), one(["null", "string", "long"]), readable=False, path="a"),
    Verdict("a union whose branches are promoted", one(["null", "double"]), one(["null", "long"]), readable=True),
    Verdict("a new symbol that the reader knows", one(enum("RED", "BLUE")), one(enum("RED")), readable=True),
    Verdict("a symbol that the reader lacks", one(enum("RED")), one(enum("RED", "BLUE")), readable=False, path="a"),
    Verdict("a symbol that the reader replaces", one(enum("RED", default="RED")), one(enum("RED", "BLUE")), readable=True),
    Verdict("an enum is not read as string", one("string"), one(enum("RED")), readable=False, path="a"),
    Verdict("fixed of one size", one(fixed(16)), one(fixed(16)), readable=True),
    Verdict("fixed of another size", one(fixed(8)), one(fixed(16)), readable=False, path="a"),
    Verdict("fixed of another name", one(fixed(16, "Other")), one(fixed(16)), readable=False, path="a"),
    Verdict("fixed of an aliased name", one(fixed(16, "Other", aliases=["Hash"])), one(fixed(16)), readable=True),
    Verdict("items are promoted", one(array("double")), one(array("int")), readable=True),
    Verdict("items of another type", one(array("int")), one(array("string")), readable=False, path="a[]"),
    Verdict("values are promoted", one(map_of("long")), one(map_of("int")), readable=True),
    Verdict("values of another type", one(map_of("int")), one(map_of("string")), readable=False, path="a{}"),
    Verdict("an array is not read as a map", one(map_of("int")), one(array("int")), readable=False, path="a"),
    Verdict("a nested field with a default", one(DEFAULTED_INNER), one(INNER), readable=True),
    Verdict("a nested field without a default", one(WIDER_INNER), one(INNER), readable=False, path="a.y"),
    Verdict(
        "a nested field without a default in an array",
        one(array(WIDER_INNER)), one(array(INNER)), readable=False, path="a[].y",
    ),
    Verdict("a nested record that becomes optional", one(["null", INNER]), one(INNER), readable=True),
    Verdict("a record of another name", record(field("string"), name="Other"), one("string"), readable=False),
    Verdict("a record of an aliased name", record(field("string"), name="Other", aliases=["Case"]), one("string"), readable=True),
    Verdict("a record in another namespace", {**one("string"), "namespace": "others"}, one("string"), readable=True),
    Verdict("the same decimal", one(decimal(10, 2)), one(decimal(10, 2)), readable=True),
    Verdict("a decimal of another scale", one(decimal(10, 3)), one(decimal(10, 2)), readable=False, path="a", differs=UNSCALED),
    Verdict(
        "a decimal of another precision",
        one(decimal(12, 2)), one(decimal(10, 2)), readable=False, path="a", differs=UNSCALED,
    ),
    Verdict("a number that becomes a timestamp", one(stamp("timestamp-micros")), one("long"), readable=True),
    Verdict("a timestamp read as a number", one("long"), one(stamp("timestamp-micros")), readable=True),
    Verdict(
        "microseconds are not milliseconds",
        one(stamp("timestamp-micros")), one(stamp("timestamp-millis")), readable=False, path="a", differs=SAME_NUMBER,
    ),
)  # fmt: skip
