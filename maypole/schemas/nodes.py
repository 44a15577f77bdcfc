"""An Avro schema as a tree of values: names resolved, attributes that mean nothing to a reader left out.

Source: Apache Avro 1.12 specification, "Schema Declaration". A schema inside the safe subset has no cycles, so a
reference to a named type simply is that type.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum as Choice
from enum import StrEnum
from typing import Any, Final, TypeAlias


class Missing(Choice):
    """The absence of a default, which differs from a default of null."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


class Kind(StrEnum):
    NULL = "null"
    BOOLEAN = "boolean"
    INT = "int"
    LONG = "long"
    FLOAT = "float"
    DOUBLE = "double"
    BYTES = "bytes"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class Logical:
    """A logical type that readers act on; `precision` and `scale` in decimal digits, of decimals only."""

    name: str
    precision: int = 0
    scale: int = 0


@dataclass(frozen=True, slots=True)
class Primitive:
    kind: Kind
    logical: Logical | None = None


@dataclass(frozen=True, slots=True)
class Fixed:
    """`size` in bytes."""

    name: str
    aliases: tuple[str, ...]
    size: int
    logical: Logical | None = None


@dataclass(frozen=True, slots=True)
class Enum:
    """`default` is what a reader takes for a symbol that it does not know."""

    name: str
    aliases: tuple[str, ...]
    symbols: tuple[str, ...]
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Array:
    items: Node


@dataclass(frozen=True, slots=True)
class Map:
    values: Node


@dataclass(frozen=True, slots=True)
class Union:
    branches: tuple[Node, ...]

    @property
    def optional(self) -> Node | None:
        """The other branch of a union of null and one type; None for any other union."""
        others = [branch for branch in self.branches if not is_null(branch)]
        return others[0] if len(others) == 1 and len(self.branches) == 2 else None


@dataclass(frozen=True, slots=True)
class Field:
    """`default` is JSON as it stands in the schema."""

    name: str
    type: Node
    aliases: tuple[str, ...] = ()
    default: Any = MISSING


@dataclass(frozen=True, slots=True)
class Record:
    name: str
    aliases: tuple[str, ...]
    fields: tuple[Field, ...]


Named: TypeAlias = Fixed | Enum | Record
Node: TypeAlias = Primitive | Fixed | Enum | Array | Map | Union | Record


def is_null(node: Node) -> bool:
    return isinstance(node, Primitive) and node.kind is Kind.NULL


def title(node: Node) -> str:
    """What a person calls the type, for error messages."""
    match node:
        case Primitive(kind, None):
            return kind.value
        case Primitive(kind, logical) if logical:
            detail = f"({logical.precision}, {logical.scale})" if logical.name == "decimal" else ""
            return f"{kind.value} as {logical.name}{detail}"
        case Fixed(name=name, size=size):
            return f"fixed {name} of {size} bytes"
        case Enum(name=name):
            return f"enum {name}"
        case Array(items):
            return f"array of {title(items)}"
        case Map(values):
            return f"map of {title(values)}"
        case Union(branches):
            return "union of " + ", ".join(title(branch) for branch in branches)
        case Record(name=name):
            return f"record {name}"
    return "nothing"
