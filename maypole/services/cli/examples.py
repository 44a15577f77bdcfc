"""An example of an event as JSON, made from its schema: what an error or a generated test shows."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from maypole.schemas.avro import Schema
from maypole.schemas.nodes import MISSING, Array, Enum, Fixed, Kind, Map, Node, Primitive, Record, Union, is_null

_LOGICAL: Final = {
    "uuid": "00000000-0000-4000-8000-000000000000",
    "date": "2026-01-31",
    "timestamp-micros": "2026-01-31T12:00:00Z",
    "timestamp-millis": "2026-01-31T12:00:00Z",
    "decimal": "0",
}
_PLAIN: Final[dict[Kind, Any]] = {
    Kind.NULL: None, Kind.BOOLEAN: True, Kind.INT: 1, Kind.LONG: 1, Kind.FLOAT: 0.9, Kind.DOUBLE: 0.9, Kind.BYTES: "AAEC",
}  # fmt: skip


def example(schema: Schema) -> str:
    """One line of JSON with the fields that have no default."""
    return json.dumps(example_value(schema), ensure_ascii=False)


def example_value(schema: Schema) -> Any:
    return _example(schema.node, "")


def _example(node: Node, name: str) -> Any:
    match node:
        case Record(fields=fields):
            return {field.name: _example(field.type, field.name) for field in fields if field.default is MISSING}
        case Primitive(kind, logical):
            if logical is not None and logical.name in _LOGICAL:
                return _LOGICAL[logical.name]
            return (f"{name}?" if name == "question" else name or "text") if kind is Kind.STRING else _PLAIN[kind]
        case Enum(symbols=symbols):
            return symbols[0]
        case Fixed(size=size):
            return base64.b64encode(bytes(size)).decode()
        case Array(items):
            return [_example(items, name.removesuffix("s"))]
        case Map(values):
            return {"key": _example(values, name)}
        case Union(branches):
            return _example(next((branch for branch in branches if not is_null(branch)), branches[0]), name)
