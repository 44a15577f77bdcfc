"""Reading an Avro schema, from our own classes or from anywhere, and refusing what is outside the safe subset.

A schema from a registry or a catalog decides how much memory and how many stack frames a few bytes may cost us. So:
no recursion, bounded depth, size and count (after references are followed, where small schemas grow exponentially), and
nothing of zero width below the root: an array of nulls of twenty million items is five bytes long.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from maypole.schemas.errors import UnsafeSchema
from maypole.schemas.nodes import MISSING, Array, Enum, Field, Fixed, Kind, Logical, Map, Named, Node, Primitive, Record, Union

TEXT_BYTES_MAX: Final = 256 * 1024
DEPTH_MAX: Final = 32
NODES_MAX: Final = 2000
FIXED_BYTES_MAX: Final = 64 * 1024
PRECISION_MAX: Final = 1000

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FULLNAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_PRIMITIVES: Final = frozenset(kind.value for kind in Kind)
_LOGICAL: Final = {
    "date": Kind.INT,
    "time-millis": Kind.INT,
    "time-micros": Kind.LONG,
    "timestamp-millis": Kind.LONG,
    "timestamp-micros": Kind.LONG,
    "local-timestamp-millis": Kind.LONG,
    "local-timestamp-micros": Kind.LONG,
    "uuid": Kind.STRING,
    "decimal": Kind.BYTES,
}


def parse_schema(definition: str | Mapping[str, Any] | Sequence[Any]) -> Node:
    """The tree of a schema given as JSON text or as parsed JSON. Raises `UnsafeSchema` naming the path of what is refused."""
    if isinstance(definition, str):
        if len(definition) > TEXT_BYTES_MAX:
            message = f"expected a schema of at most {TEXT_BYTES_MAX} characters, found {len(definition)}"
            raise UnsafeSchema(message)
        try:
            definition = json.loads(definition)
        except (ValueError, RecursionError) as error:
            # Primitives may be written bare: `string` is not JSON, `"string"` is; registries hand out both.
            if definition not in _PRIMITIVES:
                message = f"expected a schema in JSON, found {type(error).__name__}: {error}"
                raise UnsafeSchema(message) from error
    return _Parser().node(definition, "schema", "", 0, root=True)


class _Parser:
    def __init__(self) -> None:
        self._named: dict[str, tuple[Named, int, int]] = {}
        """By full name: the type, how many types it holds and how many levels, references followed."""
        self._open: set[str] = set()
        self._nodes = 0
        self._deepest = 0

    def node(self, definition: object, path: str, namespace: str, depth: int, *, root: bool = False) -> Node:
        self._count(1, depth, path)
        match definition:
            case str():
                return self._reference(definition, path, namespace, depth, root=root)
            case [*branches]:
                return self._union(branches, path, namespace, depth)
            case {"type": dict() | list() as inner, **rest} if not rest:
                return self.node(inner, path, namespace, depth + 1, root=root)
            case {"type": str() as kind} if isinstance(definition, dict):
                return self._declared(kind, definition, path, namespace, depth, root=root)
        raise UnsafeSchema(f"{path}: expected an Avro schema, found {str(definition)[:80]}")

    def _count(self, nodes: int, depth: int, path: str) -> None:
        self._deepest = max(self._deepest, depth)
        if depth > DEPTH_MAX:
            raise UnsafeSchema(f"{path}: expected at most {DEPTH_MAX} levels of nesting, found more")
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            raise UnsafeSchema(f"{path}: expected at most {NODES_MAX} types in a schema, found more")

    def _reference(self, name: str, path: str, namespace: str, depth: int, *, root: bool) -> Node:
        if name in _PRIMITIVES:
            return self._primitive(Kind(name), None, path, root=root)
        fullname = name if "." in name or not namespace else f"{namespace}.{name}"
        if fullname in self._open:
            raise UnsafeSchema(f"{path}: {fullname} contains itself; a schema must not be recursive")
        if fullname not in self._named:
            raise UnsafeSchema(f"{path}: expected a type declared before it is used, found {name!r}")
        node, nodes, levels = self._named[fullname]
        self._count(nodes, depth + levels, path)
        return node

    def _primitive(self, kind: Kind, logical: Logical | None, path: str, *, root: bool) -> Primitive:
        if kind is Kind.NULL and not root:
            raise UnsafeSchema(f"{path}: null takes no bytes; outside of a union it lets a few bytes become millions of items")
        return Primitive(kind, logical)

    def _union(self, branches: list[Any], path: str, namespace: str, depth: int) -> Union:
        nodes: list[Node] = []
        for index, branch in enumerate(branches):
            branch_path = f"{path}[{index}]"
            if isinstance(branch, list):
                raise UnsafeSchema(f"{branch_path}: a union stands directly inside a union")
            # A branch costs at least the byte of its index, so here null is no zero-width item.
            nodes.append(self.node(branch, branch_path, namespace, depth + 1, root=branch in ("null", {"type": "null"})))
        kinds = [getattr(node, "name", None) or getattr(node, "kind", None) or type(node).__name__ for node in nodes]
        if not nodes or len(set(kinds)) != len(kinds):
            raise UnsafeSchema(f"{path}: expected a union of different types, found {kinds}")
        return Union(tuple(nodes))

    def _declared(self, kind: str, definition: dict[Any, Any], path: str, namespace: str, depth: int, *, root: bool) -> Node:
        if kind in _PRIMITIVES:
            return self._primitive(Kind(kind), _logical(definition, Kind(kind)), path, root=root)
        match kind:
            case "array":
                return Array(self.node(definition.get("items"), f"{path}.items", namespace, depth + 1))
            case "map":
                return Map(self.node(definition.get("values"), f"{path}.values", namespace, depth + 1))
            case "record" | "error" | "enum" | "fixed":
                return self._named_type(kind, definition, path, namespace, depth, root=root)
        return self._reference(kind, path, namespace, depth, root=root)

    def _named_type(self, kind: str, definition: dict[str, Any], path: str, namespace: str, depth: int, *, root: bool) -> Named:
        fullname, namespace = _fullname(definition, path, namespace)
        if fullname in self._open or fullname in self._named:
            raise UnsafeSchema(f"{path}: {fullname} is declared twice")
        aliases = tuple(a if "." in a or not namespace else f"{namespace}.{a}" for a in _names(definition, "aliases", path, _FULLNAME))
        nodes_before, deepest_before, self._deepest = self._nodes, self._deepest, depth
        self._open.add(fullname)
        node: Named
        match kind:
            case "fixed":
                node = Fixed(fullname, aliases, _size(definition, path), _logical(definition, None))
            case "enum":
                node = _enum(fullname, aliases, definition, path)
            case _:
                node = Record(fullname, aliases, self._fields(definition, path, namespace, depth, root=root))
        self._open.discard(fullname)
        self._named[fullname] = node, self._nodes - nodes_before, self._deepest - depth
        self._deepest = max(self._deepest, deepest_before)
        return node

    def _fields(self, definition: dict[str, Any], path: str, namespace: str, depth: int, *, root: bool) -> tuple[Field, ...]:
        declared = definition.get("fields")
        if not isinstance(declared, list):
            raise UnsafeSchema(f"{path}: expected a list of fields, found {str(declared)[:80]}")
        if not declared and not root:
            raise UnsafeSchema(f"{path}: a record without fields takes no bytes; it may only stand at the root")
        fields: list[Field] = []
        for field in declared:
            if not isinstance(field, dict) or not isinstance(field.get("name"), str) or not _NAME.fullmatch(field["name"]):
                raise UnsafeSchema(f"{path}: expected a field with a name of letters, digits and underscores, found {str(field)[:80]}")
            name = field["name"]
            field_path = f"{path}.{name}"
            if any(other.name == name for other in fields):
                raise UnsafeSchema(f"{field_path}: is declared twice")
            node = self.node(field.get("type"), field_path, namespace, depth + 1)
            fields.append(Field(name, node, _names(field, "aliases", field_path, _NAME), field.get("default", MISSING)))
        return tuple(fields)


def _fullname(definition: dict[str, Any], path: str, namespace: str) -> tuple[str, str]:
    name = definition.get("name")
    if not isinstance(name, str) or not _FULLNAME.fullmatch(name):
        raise UnsafeSchema(f"{path}: expected a name of letters, digits and underscores, found {str(name)[:80]!r}")
    if "." in name:
        return name, name.rpartition(".")[0]
    own = definition.get("namespace", namespace)
    if not isinstance(own, str) or (own and not _FULLNAME.fullmatch(own)):
        raise UnsafeSchema(f"{path}: expected a namespace of dotted names, found {str(own)[:80]!r}")
    return (f"{own}.{name}" if own else name), own


def _names(definition: dict[str, Any], key: str, path: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    names = definition.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) and pattern.fullmatch(name) for name in names):
        raise UnsafeSchema(f"{path}: expected {key} to be a list of names, found {str(names)[:80]}")
    return tuple(names)


def _enum(fullname: str, aliases: tuple[str, ...], definition: dict[str, Any], path: str) -> Enum:
    symbols = _names(definition, "symbols", path, _NAME)
    default = definition.get("default")
    if not symbols or len(set(symbols)) != len(symbols):
        raise UnsafeSchema(f"{path}: expected different symbols, found {list(symbols)[:8]}")
    if default is not None and default not in symbols:
        raise UnsafeSchema(f"{path}: expected a default among the symbols, found {str(default)[:80]!r}")
    return Enum(fullname, aliases, symbols, default)


def _size(definition: dict[str, Any], path: str) -> int:
    size = definition.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= FIXED_BYTES_MAX:
        raise UnsafeSchema(f"{path}: expected a fixed size of 1 to {FIXED_BYTES_MAX} bytes, found {str(size)[:80]}")
    return size


def _logical(definition: dict[str, Any], kind: Kind | None) -> Logical | None:
    """The logical type, or None: by the specification an unknown or invalid one is ignored. `kind` None stands for fixed."""
    name = definition.get("logicalType")
    if not isinstance(name, str):
        return None
    if name == "decimal" and kind in (Kind.BYTES, None):
        precision, scale = definition.get("precision"), definition.get("scale", 0)
        if type(precision) is int and type(scale) is int and 0 <= scale <= precision and 1 <= precision <= PRECISION_MAX:
            return Logical(name, precision, scale)
        return None
    if name == "uuid" and kind is None and definition.get("size") == 16:
        return Logical(name)
    return Logical(name) if kind is not None and _LOGICAL.get(name) is kind else None
