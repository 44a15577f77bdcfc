"""An Avro schema as a value: its canonical text, and the id derived from it.

The canonical text is the specification's Parsing Canonical Form, extended by what a reader acts on beside the layout of
the bytes: logical types with precision and scale, defaults and aliases. Without them two different contracts would share
an id. Names are full, documentation and order are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from maypole.schemas.nodes import MISSING, Array, Enum, Field, Fixed, Logical, Map, Node, Primitive, Record, Union
from maypole.schemas.safety import parse_schema

if TYPE_CHECKING:
    from maypole.schemas.event import Event

DERIVED_ID_MIN: Final = 2**30
"""Registries count from 1 upwards; ids from here on are derived from the schema and never asked of a registry."""
DERIVED_ID_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema inside the safe subset. Equal when the canonical texts are.

    `text` is the JSON as it is stored and announced, `fullname` the record's name with its namespace (empty for a schema
    that has no name), `derived_id` is in 2^30 to 2^31-1.
    """

    canonical: str
    derived_id: int
    fullname: str = field(compare=False)
    text: str = field(compare=False, repr=False)
    node: Node = field(compare=False, repr=False)

    @classmethod
    def parse(cls, definition: str | Mapping[str, Any] | Sequence[Any]) -> Schema:
        """From JSON text or parsed JSON. Raises `UnsafeSchema` naming the path of what is outside the safe subset."""
        node = parse_schema(definition)
        canonical = json.dumps(_canonical(node, set()), separators=(",", ":"), ensure_ascii=False)
        text = definition if isinstance(definition, str) else json.dumps(definition, ensure_ascii=False)
        return cls(canonical, derived_id_of(canonical), getattr(node, "name", ""), text, node)

    @property
    def definition(self) -> Any:
        """The parsed JSON, made anew at every call."""
        try:
            return json.loads(self.text)
        except ValueError:
            return self.text


def derived_id_of(canonical: str) -> int:
    """The first four bytes of the text's SHA-256, folded into 2^30 to 2^31-1."""
    return DERIVED_ID_MIN | int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:4], "big") & DERIVED_ID_MIN - 1


@cache
def schema_of(event_class: type[Event]) -> Schema:
    """The schema of an event class, as it was derived when the class was declared."""
    return Schema.parse(event_class.avro_definition)


def is_derived(schema_id: int) -> bool:
    return schema_id >= DERIVED_ID_MIN


def _canonical(node: Node, declared: set[str]) -> Any:
    match node:
        case Primitive(kind, None):
            return kind.value
        case Primitive(kind, logical):
            return {"type": kind.value} | _logical(logical)
        case Array(items):
            return {"type": "array", "items": _canonical(items, declared)}
        case Map(values):
            return {"type": "map", "values": _canonical(values, declared)}
        case Union(branches):
            return [_canonical(branch, declared) for branch in branches]
        case Fixed(name=name) | Enum(name=name) | Record(name=name) if name in declared:
            return name
    declared.add(node.name)
    aliases = {"aliases": list(node.aliases)} if node.aliases else {}
    match node:
        case Fixed():
            return {"name": node.name, "type": "fixed", "size": node.size} | _logical(node.logical) | aliases
        case Enum():
            default = {"default": node.default} if node.default is not None else {}
            return {"name": node.name, "type": "enum", "symbols": list(node.symbols)} | default | aliases
    return {"name": node.name, "type": "record", "fields": [_canonical_field(f, declared) for f in node.fields]} | aliases


def _canonical_field(declared_field: Field, declared: set[str]) -> dict[str, Any]:
    form: dict[str, Any] = {"name": declared_field.name, "type": _canonical(declared_field.type, declared)}
    if declared_field.default is not MISSING:
        form["default"] = declared_field.default
    if declared_field.aliases:
        form["aliases"] = list(declared_field.aliases)
    return form


def _logical(logical: Logical | None) -> dict[str, Any]:
    if logical is None:
        return {}
    if logical.name == "decimal":
        return {"logicalType": logical.name, "precision": logical.precision, "scale": logical.scale}
    return {"logicalType": logical.name}
