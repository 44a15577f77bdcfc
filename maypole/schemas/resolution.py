"""From what fastavro read with the writer's schema to what the reader's schema means.

Source: Apache Avro 1.12 specification, "Schema Resolution". The codec's own resolution is not used: while it skips a
writer's field it accepts truncated data, and an array of doubles that claims 2^62 items keeps it busy for ever.

Conversions are built once per pair of schemas. None stands for a value that needs none, so that a flat event of strings
and numbers passes through untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from maypole.schemas.errors import Undecodable
from maypole.schemas.logical import (
    date_of_days,
    datetime_of_micros,
    datetime_of_millis,
    decimal_of,
    local_of_micros,
    local_of_millis,
    time_of_micros,
    time_of_millis,
)
from maypole.schemas.nodes import MISSING, Array, Enum, Fixed, Kind, Logical, Map, Node, Primitive, Record, Union, is_null, title
from maypole.schemas.readonly import ReadOnly

Conversion = Callable[[Any], Any] | None

_LOGICAL: Final[dict[str, Callable[[Any], Any]]] = {
    "date": date_of_days,
    "time-millis": time_of_millis,
    "time-micros": time_of_micros,
    "timestamp-millis": datetime_of_millis,
    "timestamp-micros": datetime_of_micros,
    "local-timestamp-millis": local_of_millis,
    "local-timestamp-micros": local_of_micros,
}

PROMOTIONS: Final[dict[Kind, frozenset[Kind]]] = {
    Kind.INT: frozenset({Kind.LONG, Kind.FLOAT, Kind.DOUBLE}),
    Kind.LONG: frozenset({Kind.FLOAT, Kind.DOUBLE}),
    Kind.FLOAT: frozenset({Kind.DOUBLE}),
    Kind.STRING: frozenset({Kind.BYTES}),
    Kind.BYTES: frozenset({Kind.STRING}),
}
"""What a writer's primitive may be read as, beside itself."""


def conversion(writer: Node, reader: Node, *, frozen: bool) -> Conversion:
    """How a value read with `writer`'s layout becomes one of `reader`. `frozen`: records are read-only mappings, too.

    Raises `Undecodable` if no value of the one can be a value of the other.
    """
    return _Resolver(frozen=frozen).pair(writer, reader)


def same_name(writer: Fixed | Enum | Record, reader: Fixed | Enum | Record) -> bool:
    """Unqualified names are equal, or the reader knows the writer's name as an alias."""
    unqualified = writer.name.rpartition(".")[2]
    return unqualified == reader.name.rpartition(".")[2] or writer.name in reader.aliases or unqualified in reader.aliases


def same_meaning(writer: Logical | None, reader: Logical | None) -> bool:
    """Both say the same of the value, or one of them says nothing."""
    return writer is None or reader is None or writer == reader


def matches(writer: Node, reader: Node) -> bool:
    """The specification's "match", one level deep: how a branch of a reader's union is chosen."""
    match writer, reader:
        case (_, Union()) | (Union(), _):
            return True
        case Primitive(), Primitive():
            promoted = writer.kind is reader.kind or reader.kind in PROMOTIONS.get(writer.kind, ())
            return promoted and same_meaning(writer.logical, reader.logical)
        case Array(a), Array(b):
            return matches(a, b)
        case Map(a), Map(b):
            return matches(a, b)
        case Fixed(), Fixed():
            return same_name(writer, reader) and writer.size == reader.size and same_meaning(writer.logical, reader.logical)
        case Enum(), Enum():
            return same_name(writer, reader)
        case Record(), Record():
            return same_name(writer, reader)
    return False


def chosen_branch(writer: Node, reader: Union) -> Node | None:
    """The branch of the reader's union that a writer's value is read as: one of the same type, else the first that matches."""
    candidates = [branch for branch in reader.branches if matches(writer, branch)]
    for branch in candidates:
        if isinstance(writer, Primitive) and isinstance(branch, Primitive) and branch.kind is writer.kind:
            return branch
    return candidates[0] if candidates else None


class _Resolver:
    def __init__(self, *, frozen: bool) -> None:
        self._frozen = frozen

    def pair(self, writer: Node, reader: Node) -> Conversion:
        if isinstance(writer, Union):
            return self._written_union(writer, reader)
        if isinstance(reader, Union):
            branch = chosen_branch(writer, reader)
            if branch is None:
                raise _mismatch(writer, reader)
            return self.pair(writer, branch)
        if not matches(writer, reader):
            raise _mismatch(writer, reader)
        match writer, reader:
            case Primitive(), Primitive():
                return _then(_promotion(writer.kind, reader.kind), _meaning(reader.logical))
            case Fixed(), Fixed():
                return _meaning(reader.logical, fixed=True)
            case Enum(), Enum():
                return _symbols(writer, reader)
            case Array(a), Array(b):
                return self._array(self.pair(a, b))
            case Map(a), Map(b):
                return self._map(self.pair(a, b))
            case Record(), Record():
                return self._record(writer, reader)
        raise _mismatch(writer, reader)

    def _written_union(self, writer: Union, reader: Node) -> Conversion:
        if (inner := writer.optional) is not None:
            null = self._branch(next(branch for branch in writer.branches if is_null(branch)), reader)
            convert = self._branch(inner, reader)
            if null is None:
                return None if convert is None else lambda value: None if value is None else convert(value)
            return lambda value: null(value) if value is None else convert(value) if convert else value
        branches = {f"b{index}": self._branch(branch, reader) for index, branch in enumerate(writer.branches)}
        nulls = [self._branch(branch, reader) for branch in writer.branches if is_null(branch)]

        def unwrapped(value: Any) -> Any:
            if value is None:
                return nulls[0](None) if nulls[0] else None
            ((name, inner),) = value.items()
            convert = branches[name]
            return convert(inner) if convert else inner

        return unwrapped

    def _branch(self, branch: Node, reader: Node) -> Conversion:
        """A branch that the reader cannot read is an error only when it is met."""
        try:
            return self.pair(branch, reader)
        except Undecodable as error:
            message = str(error)

            def refused(_: Any) -> Any:
                raise Undecodable(message)

            return refused

    def _array(self, convert: Conversion) -> Conversion:
        return tuple if convert is None else lambda items: tuple([convert(item) for item in items])

    def _map(self, convert: Conversion) -> Conversion:
        if convert is None:
            return ReadOnly if self._frozen else None
        if self._frozen:
            return lambda items: ReadOnly({key: convert(item) for key, item in items.items()})
        return lambda items: {key: convert(item) for key, item in items.items()}

    def _record(self, writer: Record, reader: Record) -> Conversion:
        wanted = {alias: field for field in reader.fields for alias in field.aliases} | {field.name: field for field in reader.fields}
        read: list[tuple[str, str, Conversion]] = []
        for field in writer.fields:
            target = wanted.get(field.name)
            if target is not None and target.name not in {name for _, name, _ in read}:
                read.append((field.name, target.name, self.pair(field.type, target.type)))
        found = {name for _, name, _ in read}
        defaults: dict[str, Any] = {}
        for field in reader.fields:
            if field.name not in found:
                if field.default is MISSING:
                    message = f"{reader.name}.{field.name} has no default, and the writer's schema {writer.name} lacks the field"
                    raise Undecodable(message)
                defaults[field.name] = default_value(field.type, field.default, frozen=self._frozen)
        changes = tuple((name, convert) for name, _, convert in read if convert is not None)
        if not defaults and len(read) == len(writer.fields) and all(name == target for name, target, _ in read):
            return self._in_place(changes)
        finish = ReadOnly if self._frozen else dict

        def rebuilt(values: dict[str, Any]) -> dict[str, Any]:
            out = defaults.copy()
            for name, target, convert in read:
                value = values[name]
                out[target] = value if convert is None else convert(value)
            return finish(out)

        return rebuilt

    def _in_place(self, changes: tuple[tuple[str, Callable[[Any], Any]], ...]) -> Conversion:
        """The writer's fields are the reader's: the dict that fastavro made is nobody else's, so it may be changed."""
        if not changes:
            return ReadOnly if self._frozen else None
        frozen = self._frozen

        def changed(values: dict[str, Any]) -> dict[str, Any]:
            for name, convert in changes:
                values[name] = convert(values[name])
            return ReadOnly(values) if frozen else values

        return changed


def default_value(node: Node, default: Any, *, frozen: bool) -> Any:
    """The value that JSON in a schema stands for. Shared by all events that lack the field, and never mutable when frozen."""
    match node:
        case Union(branches):
            for branch in branches:
                try:
                    return default_value(branch, default, frozen=frozen)
                except Undecodable:
                    continue
        case Enum(symbols=symbols) if default in symbols:
            return default
        case Array(items) if isinstance(default, list):
            return tuple(default_value(items, item, frozen=frozen) for item in default)
        case Map(values) if isinstance(default, dict):
            return ReadOnly({key: default_value(values, item, frozen=frozen) for key, item in default.items()})
        case Record(fields=fields) if isinstance(default, dict):
            filled = {f.name: default.get(f.name, f.default) for f in fields}
            if MISSING not in filled.values():
                return ReadOnly({f.name: default_value(f.type, filled[f.name], frozen=frozen) for f in fields})
        case Primitive() | Fixed() if (raw := _raw_default(node, default)) is not MISSING:
            convert = _meaning(node.logical, fixed=isinstance(node, Fixed))
            return convert(raw) if convert else raw
    message = f"expected a default that is a {title(node)}, found {str(default)[:80]}"
    raise Undecodable(message)


def _raw_default(node: Primitive | Fixed, default: Any) -> Any:
    kind = Kind.BYTES if isinstance(node, Fixed) else node.kind
    match kind, default:
        case Kind.NULL, None:
            return None
        case Kind.BOOLEAN, bool():
            return default
        case ((Kind.INT | Kind.LONG), int()) if not isinstance(default, bool):
            return default
        case ((Kind.FLOAT | Kind.DOUBLE), int() | float()) if not isinstance(default, bool):
            return float(default)
        case Kind.STRING, str():
            return default
        case Kind.BYTES, str() if all(ord(character) < 256 for character in default):
            data = default.encode("latin-1")
            if not isinstance(node, Fixed) or len(data) == node.size:
                return data
    return MISSING


def _promotion(writer: Kind, reader: Kind) -> Conversion:
    if writer is reader or reader is Kind.LONG or writer is Kind.FLOAT:
        return None
    if reader in (Kind.FLOAT, Kind.DOUBLE):
        return float
    return str.encode if reader is Kind.BYTES else bytes.decode


def _meaning(logical: Logical | None, *, fixed: bool = False) -> Conversion:
    if logical is None:
        return None
    if logical.name == "decimal":
        precision, scale = logical.precision, logical.scale
        return lambda data: decimal_of(data, precision, scale)
    if logical.name == "uuid":
        return (lambda data: UUID(bytes=data)) if fixed else UUID
    return _LOGICAL[logical.name]


def _symbols(writer: Enum, reader: Enum) -> Conversion:
    table = [symbol if symbol in reader.symbols else reader.default for symbol in writer.symbols]

    def symbol(index: int) -> str:
        found = table[index] if 0 <= index < len(table) else None
        if found is None:
            written = writer.symbols[index] if 0 <= index < len(table) else index
            message = f"expected a symbol of {title(reader)} ({', '.join(reader.symbols[:8])}), found {written}"
            raise Undecodable(message)
        return found

    return symbol


def _then(first: Conversion, second: Conversion) -> Conversion:
    if first is None or second is None:
        return first or second
    return lambda value: second(first(value))


def _mismatch(writer: Node, reader: Node) -> Undecodable:
    return Undecodable(f"expected {title(reader)}, found {title(writer)} in the writer's schema")
