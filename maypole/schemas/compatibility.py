"""Whether data of one schema can be read with another: the resolution rules of Avro, checked before any data is read.

Source: Apache Avro 1.12 specification, "Schema Resolution". BACKWARD_TRANSITIVE, in the words of the registries: the new
schema reads what every committed one wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from maypole.schemas.avro import Schema
from maypole.schemas.errors import Undecodable
from maypole.schemas.nodes import MISSING, Array, Enum, Field, Fixed, Logical, Map, Node, Primitive, Record, Union, is_null, title
from maypole.schemas.resolution import PROMOTIONS, chosen_branch, default_value, same_meaning, same_name


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """Why a reader cannot read a writer's data. `path` leads from the reader's record to the place: `findings[].score`."""

    path: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.path or 'the schema'}: expected {self.expected}, found {self.found}"


def explain(reader: Schema, writer: Schema) -> list[Incompatibility]:
    """Everything that keeps `reader` from reading data of `writer`; empty when it can read all of it."""
    return list(_differences(reader.node, writer.node, ""))


def explain_all(reader: Schema, writers: Iterable[tuple[str, Schema]]) -> list[tuple[str, Incompatibility]]:
    """BACKWARD_TRANSITIVE: what keeps `reader` from reading each of the named `writers`."""
    return [(name, problem) for name, writer in writers for problem in explain(reader, writer)]


def _differences(reader: Node, writer: Node, path: str) -> Iterator[Incompatibility]:
    # A writer's union can hold any of its branches, so the reader must be ready for each of them.
    if isinstance(writer, Union):
        for branch in writer.branches:
            yield from _differences(reader, branch, path)
        return
    if isinstance(reader, Union):
        chosen = chosen_branch(writer, reader)
        if chosen is None:
            yield Incompatibility(path, title(reader), title(writer))
        else:
            yield from _differences(chosen, writer, path)
        return
    match reader, writer:
        case Primitive(), Primitive():
            if writer.kind is not reader.kind and reader.kind not in PROMOTIONS.get(writer.kind, ()):
                yield Incompatibility(path, title(reader), title(writer))
            else:
                yield from _meanings(reader.logical, writer.logical, path)
        case Fixed(), Fixed():
            yield from _names(reader, writer, path)
            if reader.size != writer.size:
                yield Incompatibility(path, f"{reader.size} bytes", f"{writer.size} bytes")
            yield from _meanings(reader.logical, writer.logical, path)
        case Enum(), Enum():
            yield from _names(reader, writer, path)
            unknown = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
            if unknown and reader.default is None:
                yield Incompatibility(path, f"a symbol of {', '.join(reader.symbols)} (there is no default)", ", ".join(unknown))
        case Array(a), Array(b):
            yield from _differences(a, b, f"{path}[]")
        case Map(a), Map(b):
            yield from _differences(a, b, f"{path}{{}}")
        case Record(), Record():
            yield from _names(reader, writer, path)
            yield from _fields(reader, writer, path)
        case _:
            yield Incompatibility(path, title(reader), title(writer))


def _fields(reader: Record, writer: Record, path: str) -> Iterator[Incompatibility]:
    written = {field.name: field for field in writer.fields}
    for field in reader.fields:
        field_path = f"{path}.{field.name}".lstrip(".")
        source = next((written[name] for name in (field.name, *field.aliases) if name in written), None)
        if source is not None:
            yield from _differences(field.type, source.type, field_path)
        else:
            yield from _absence(field, field_path)


def _absence(field: Field, path: str) -> Iterator[Incompatibility]:
    if field.default is MISSING:
        hint = "a default (null would do)" if isinstance(field.type, Union) and any(map(is_null, field.type.branches)) else "a default"
        yield Incompatibility(path, f"{hint}, because what was written before lacks the field", "none")
        return
    try:
        default_value(field.type, field.default, frozen=True)
    except Undecodable as error:
        yield Incompatibility(path, "a default of the field's own type", str(error))


def _names(reader: Fixed | Enum | Record, writer: Fixed | Enum | Record, path: str) -> Iterator[Incompatibility]:
    if not same_name(writer, reader):
        yield Incompatibility(path, f"the name {reader.name} or one of its aliases {list(reader.aliases)}", writer.name)


def _meanings(reader: Logical | None, writer: Logical | None, path: str) -> Iterator[Incompatibility]:
    if not same_meaning(writer, reader) and reader and writer:
        yield Incompatibility(path, _shown(reader), _shown(writer))


def _shown(logical: Logical) -> str:
    return f"decimal({logical.precision}, {logical.scale})" if logical.name == "decimal" else logical.name
