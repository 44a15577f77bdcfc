"""Events to bytes and back, in Confluent's wire format: a zero byte, the schema id in four bytes big-endian, Avro binary.

A reader turns any bytes into an event or into `Undecodable` or `ContractRefused`, in bounded memory. Both directions are
prepared once per class, so that a flat event costs one call of the codec and one of pydantic.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Final, Generic, TypeVar, cast, overload

from fastavro import schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError
from pydantic import ValidationError

from maypole.schemas.avro import Schema, schema_of
from maypole.schemas.encoding import preparation
from maypole.schemas.errors import Absent, ContractRefused, Undecodable
from maypole.schemas.event import Event
from maypole.schemas.measure import check_items, has_items
from maypole.schemas.physical import physical
from maypole.schemas.resolution import conversion

MAGIC: Final = 0
HEADER_BYTES: Final = 5
VALUE_BYTES_MAX: Final = 1024 * 1024
"""Kafka's own default limit of a record; nothing larger reaches a topic unless somebody raised both."""
ITEMS_MAX: Final = 65_536
"""Items in all arrays and maps of one value: one byte on the wire can become a kilobyte as a nested record."""

_HEADER: Final = struct.Struct(">BI")
# What the codec raises over bytes that are not what the schema says; logical types add the last two.
_POISON: Final = (EOFError, LookupError, ValueError, TypeError, OverflowError, ArithmeticError, MemoryError, SchemaResolutionError)

E = TypeVar("E", bound=Event)
R = TypeVar("R")


class Writer(Generic[E]):
    """Encodes events of one class under one schema id."""

    __slots__ = ("_header", "_prepare", "_schema", "event_class", "schema_id")

    def __init__(self, event_class: type[E], schema_id: int) -> None:
        schema = schema_of(event_class)
        self.event_class = event_class
        self.schema_id = schema_id
        self._header = _HEADER.pack(MAGIC, schema_id)
        self._schema = physical(schema.node)
        self._prepare = preparation(schema.node, self._schema)

    def encode(self, event: E) -> bytes:
        """The value of the record. An event that was constructed is valid, so this does not fail."""
        out = BytesIO()
        out.write(self._header)
        schemaless_writer(out, self._schema, self._prepare(event))
        return out.getvalue()


class Reader(Generic[R]):
    """Decodes values written under one schema: to an event class, or without one to a read-only mapping.

    Raises `Undecodable` when it is made if the writer's schema cannot be read as the class at all, saying which field.
    """

    __slots__ = ("_bytes_max", "_convert", "_items_max", "_node", "_scan_from", "_schema", "_validate", "event_class", "writer_schema")

    @overload
    def __init__(self: Reader[E], writer_schema: Schema, event_class: type[E], *, bytes_max: int = ..., items_max: int = ...) -> None: ...
    @overload
    def __init__(
        self: Reader[Mapping[str, Any]], writer_schema: Schema, event_class: None, *, bytes_max: int = ..., items_max: int = ...
    ) -> None: ...

    def __init__(
        self, writer_schema: Schema, event_class: type[Event] | None, *, bytes_max: int = VALUE_BYTES_MAX, items_max: int = ITEMS_MAX
    ) -> None:
        self.writer_schema = writer_schema
        self.event_class = event_class
        self._node = writer_schema.node
        self._schema = physical(self._node)
        self._bytes_max = bytes_max
        self._items_max = items_max
        # A value that has fewer bytes than the limit has items cannot exceed it: small values are never walked twice.
        self._scan_from = min(items_max, bytes_max) if has_items(self._node) else bytes_max
        if event_class is None:
            self._convert = conversion(self._node, self._node, frozen=True)
            self._validate: Callable[[Any], R] | None = None
        else:
            self._convert = conversion(self._node, schema_of(event_class).node, frozen=False)
            self._validate = cast(Any, event_class.__pydantic_validator__).validate_python

    def decode(self, value: bytes) -> R:
        """Raises `Undecodable` for bytes that cannot be read, `ContractRefused` for an event that breaks a rule."""
        size = len(value)
        if size > self._scan_from:
            self._measure(value, size)
        source = BytesIO(value)
        source.seek(HEADER_BYTES)
        try:
            found: Any = schemaless_reader(source, self._schema, None)
            if self._convert is not None:
                found = self._convert(found)
        except Undecodable:
            raise
        except _POISON as error:
            raise self._undecodable(_what_broke(error), value) from error
        if source.tell() != size:
            raise self._undecodable(f"{size - source.tell()} bytes are left over", value)
        if self._validate is None:
            return cast(R, found)
        try:
            return self._validate(found)
        except ValidationError as error:
            raise refusal(error, self._event_type) from error
        except Exception as error:
            # A validator of the user's that trips over a value refuses it: the same bytes would trip it again.
            rule = f"a value that the validators of {self._event_type} accept ({type(error).__name__}: {error})"
            raise ContractRefused(field="", value=found, rule=rule, event_type=self._event_type) from error

    @property
    def _event_type(self) -> str:
        return self.event_class.event_type if self.event_class is not None else self.writer_schema.fullname

    def _measure(self, value: bytes, size: int) -> None:
        if size > self._bytes_max:
            raise self._undecodable(f"expected at most {self._bytes_max} bytes, found {size}", value)
        check_items(self._node, value, HEADER_BYTES, self._items_max)

    def _undecodable(self, why: str, value: bytes) -> Undecodable:
        schema = self.writer_schema
        return Undecodable(
            f"expected an Avro value of {schema.fullname or schema.canonical[:80]} (derived id {schema.derived_id}), "
            f"found {len(value)} bytes that are not: {why}; they begin {value[:16].hex(' ')}"
        )


def _what_broke(error: BaseException) -> str:
    if isinstance(error, (EOFError, IndexError)):
        return "they end before the value does, or name a branch or symbol that the schema does not have"
    return f"{type(error).__name__}: {error}"


def schema_id_of(value: bytes | None) -> int:
    """The schema id in front of a value. Raises `Undecodable` when there is none."""
    if value is None or len(value) < HEADER_BYTES or value[0] != MAGIC:
        found = "none (a tombstone)" if value is None else f"{len(value)} bytes that begin {value[:HEADER_BYTES].hex(' ') or 'nowhere'}"
        message = f"expected a value of a zero byte, a schema id of four bytes and Avro, found {found}"
        raise Undecodable(message)
    return int.from_bytes(value[1:HEADER_BYTES], "big")


def refusal(error: ValidationError, event_type: str) -> ContractRefused:
    """The first broken rule of a validation, with field, value and rule; how many others there are."""
    details = error.errors(include_url=False, include_context=False)
    first = details[0]
    missing = first["type"] == "missing"
    if first["type"] == "extra_forbidden":
        rule = "no field of this name"
    else:
        # pydantic says "String should have at least 1 character": what is expected stands behind the verb.
        rule = re.sub(r"^(Value error, |[A-Z]\w* should (be |have )?)", "", first["msg"])
    return ContractRefused(
        field=".".join(str(part) for part in first["loc"]),
        value=Absent() if missing else first["input"],
        rule="a value" if missing else rule,
        event_type=event_type,
        more=len(details) - 1,
    )
