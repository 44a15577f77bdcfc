"""What a field of an event may be, and what it is in Avro: the one list of supported types.

It walks the core schema that pydantic made of a class, tightens what Avro or immutability demand (64-bit integers, UTC,
read-only mappings) and returns both. What is not listed here is refused, with the path of the field.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final, cast, get_args, get_origin
from uuid import UUID

from pydantic.fields import FieldInfo
from pydantic_core import SchemaValidator, ValidationError, core_schema

from maypole.schemas.errors import UnsafeSchema
from maypole.schemas.logical import days_of, micros_of, unscaled_bytes_of
from maypole.schemas.readonly import ReadOnly

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
PRECISION_MAX: Final = 38
"""Decimal digits that the SQL databases and stream processors behind a topic can hold."""

SUPPORTED: Final = (
    "str, bool, int, float, bytes, datetime, date, Decimal, UUID, a str Enum, a Value class, tuple[X, ...], Mapping[str, X], X | None"
)

Core = dict[str, Any]
Resolve = Callable[[Core], Core]

_CONFIG: Final = {"strict": True, "allow_inf_nan": False}
_SYMBOL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WRAPPERS: Final = frozenset({"function-before", "function-after", "function-wrap"})
_INSTEAD: Final[Mapping[object, str]] = {
    list: "tuple[X, ...]", Sequence: "tuple[X, ...]", MutableSequence: "tuple[X, ...]",
    set: "tuple[X, ...]", frozenset: "tuple[X, ...]", Set: "tuple[X, ...]", MutableSet: "tuple[X, ...]",
    dict: "Mapping[str, X]", MutableMapping: "Mapping[str, X]",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """A tightened core schema and its Avro type. `to_json` makes the JSON that an Avro default is written in."""

    core: Core
    avro: Any
    to_json: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True, slots=True)
class RecordShape:
    """The tightened `model-fields` schema of a class, its Avro fields, and how each field's default becomes JSON."""

    core: Core
    avro: list[dict[str, Any]]
    to_json: Mapping[str, Callable[[Any], Any]]


def record_shape(model: Core, owner: str, fields: Mapping[str, FieldInfo], resolve: Resolve) -> RecordShape:
    """Raises `UnsafeSchema` naming the field that is outside the safe subset."""
    core: Core = {}
    avro: list[dict[str, Any]] = []
    to_json: dict[str, Callable[[Any], Any]] = {}
    for name, declared in model["fields"].items():
        path = f"{owner}.{name}"
        if not _SYMBOL.fullmatch(name):
            raise UnsafeSchema(f"{path}: expected a field name of ASCII letters, digits and underscores")
        if declared.get("validation_alias") or declared.get("serialization_alias"):
            raise UnsafeSchema(f"{path}: an alias is not supported; the field has one name, also on the wire")
        _refuse_mutable(fields[name].annotation, path)
        shape, default = _field(declared["schema"], path, resolve)
        core[name] = {**declared, "schema": shape.core}
        described = {"doc": description} if (description := fields[name].description) else {}
        avro.append({"name": name, "type": shape.avro} | described | default)
        to_json[name] = shape.to_json
    return RecordShape({**model, "fields": core}, avro, to_json)


def _field(inner: Core, path: str, resolve: Resolve) -> tuple[Shape, dict[str, Any]]:
    """The shape of a field, and its default as a part of the Avro field."""
    if inner["type"] != "default":
        return _shape(inner, path, resolve), {}
    if "default_factory" in inner:
        raise UnsafeSchema(f"{path}: a default that is made at every call has no place in a contract; give a constant")
    shape = _shape(inner["schema"], path, resolve)
    try:
        default = SchemaValidator(cast(Any, shape.core), cast(Any, _CONFIG)).validate_python(inner.get("default"))
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        message = f"{path}: expected a default that the field itself would accept, found {inner.get('default')!r}: {reason}"
        raise UnsafeSchema(message) from error
    avro = shape.avro
    if isinstance(avro, list) and default is not None:
        # By the specification a default belongs to the first branch of a union.
        avro = [avro[1], avro[0]]
    core = {**inner, "schema": shape.core, "default": default, "copy_default": False}
    return Shape(core, avro, shape.to_json), {"default": shape.to_json(default)}


def _shape(schema: Core, path: str, resolve: Resolve) -> Shape:
    kind = schema["type"]
    if kind in _SIMPLE:
        return Shape(schema, _SIMPLE[kind])
    if kind in _WRAPPERS:
        inner = _shape(schema["schema"], path, resolve)
        return Shape({**schema, "schema": inner.core}, inner.avro, inner.to_json)
    if kind == "definition-ref":
        try:
            found = resolve(schema)
        except LookupError as error:
            raise UnsafeSchema(f"{path}: contains itself; a recursive type is not supported") from error
        # Inlined, so that the schema of a field can be used on its own.
        return _shape({key: value for key, value in found.items() if key != "ref"}, path, resolve)
    if kind in _COMPOSED:
        return _COMPOSED[kind](schema, path, resolve)
    raise UnsafeSchema(f"{path}: expected one of {SUPPORTED}; found a type that pydantic calls {kind!r}")


def _str(schema: Core, path: str, resolve: Resolve) -> Shape:
    # The bound says nothing about the length: it makes pydantic look at the text, and refuse what has no UTF-8 (lone surrogates).
    return Shape({"min_length": 0} | schema, "string")


def _bytes(schema: Core, path: str, resolve: Resolve) -> Shape:
    return Shape(schema, "bytes", lambda value: value.decode("latin-1"))


def _int(schema: Core, path: str, resolve: Resolve) -> Shape:
    low = {"ge": INT64_MIN} if "gt" not in schema else {}
    high = {"le": INT64_MAX} if "lt" not in schema else {}
    tight = low | high | schema
    for bound in ("ge", "gt", "le", "lt"):
        if bound in tight and not INT64_MIN <= tight[bound] <= INT64_MAX:
            raise UnsafeSchema(f"{path}: expected bounds within 64 bits, found {bound}={tight[bound]}")
    return Shape(tight, "long")


def _datetime(schema: Core, path: str, resolve: Resolve) -> Shape:
    aware = {**schema, "tz_constraint": "aware"}
    core = core_schema.no_info_after_validator_function(_utc, cast(Any, aware))
    return Shape(cast(Core, core), {"type": "long", "logicalType": "timestamp-micros"}, micros_of)


def _utc(value: datetime) -> datetime:
    if value.tzinfo is UTC and type(value) is datetime:
        return value
    try:
        moved = value.astimezone(UTC)
    except OverflowError as error:
        message = "a time between the years 1 and 9999 in UTC"
        raise ValueError(message) from error
    # Subclasses may carry more than microseconds, which would not survive the wire.
    return datetime(moved.year, moved.month, moved.day, moved.hour, moved.minute, moved.second, moved.microsecond, UTC)


def _date(schema: Core, path: str, resolve: Resolve) -> Shape:
    return Shape(schema, {"type": "int", "logicalType": "date"}, days_of)


def _uuid(schema: Core, path: str, resolve: Resolve) -> Shape:
    return Shape(schema, {"type": "string", "logicalType": "uuid"}, str)


def _decimal(schema: Core, path: str, resolve: Resolve) -> Shape:
    digits, places = schema.get("max_digits"), schema.get("decimal_places")
    if digits is None or places is None:
        raise UnsafeSchema(f"{path}: expected Decimal with Field(max_digits=..., decimal_places=...): Avro has no other decimals")
    if not 0 <= places <= digits <= PRECISION_MAX or digits < 1:
        message = f"{path}: expected decimal_places <= max_digits <= {PRECISION_MAX}, found {places} and {digits}"
        raise UnsafeSchema(message)
    avro = {"type": "bytes", "logicalType": "decimal", "precision": digits, "scale": places}
    return Shape(schema, avro, lambda value: unscaled_bytes_of(value, places).decode("latin-1"))


def _enum(schema: Core, path: str, resolve: Resolve) -> Shape:
    members: list[Enum] = schema["members"]
    if schema.get("sub_type") != "str":
        raise UnsafeSchema(f"{path}: expected an enum of strings (StrEnum), found {schema['cls'].__name__}")
    symbols = [str(member.value) for member in members]
    for symbol in symbols:
        if not _SYMBOL.fullmatch(symbol):
            raise UnsafeSchema(f"{path}: expected enum values of ASCII letters, digits and underscores (Avro symbols), found {symbol!r}")
    avro = {"type": "enum", "name": _named(schema["cls"], path), "symbols": symbols}
    # Not strict, so that a symbol read from the wire becomes its member inside pydantic.
    return Shape({key: value for key, value in schema.items() if key != "ref"} | {"strict": False}, avro, lambda value: str(value.value))


def _model(schema: Core, path: str, resolve: Resolve) -> Shape:
    fields = getattr(schema["cls"], "__avro_fields__", None)
    if fields is None:
        raise UnsafeSchema(f"{path}: expected a nested class that derives from Value, found {schema['cls'].__name__}")
    if not fields:
        raise UnsafeSchema(f"{path}: {schema['cls'].__name__} has no fields, so it takes no bytes; millions of them would fit into a few")
    record: dict[str, Any] = {"type": "record", "name": _named(schema["cls"], path)}
    if doc := doc_of(schema["cls"]):
        record["doc"] = doc
    record["fields"] = fields

    def to_json(value: Any) -> Any:
        return {name: shape(getattr(value, name)) for name, shape in schema["cls"].__to_json__.items()}

    # Not strict in this one respect: a nested record is read from a mapping.
    return Shape({**schema, "strict": False}, record, to_json)


def _tuple(schema: Core, path: str, resolve: Resolve) -> Shape:
    items = schema["items_schema"]
    if schema.get("variadic_item_index") != 0 or len(items) != 1:
        raise UnsafeSchema(f"{path}: expected tuple[X, ...], found a tuple of fixed length; a Value class names its parts")
    shape = _shape(items[0], f"{path}[]", resolve)
    avro = {"type": "array", "items": shape.avro}
    return Shape({**schema, "items_schema": [shape.core]}, avro, lambda value: [shape.to_json(item) for item in value])


def _dict(schema: Core, path: str, resolve: Resolve) -> Shape:
    if schema.get("keys_schema", {}).get("type") != "str":
        raise UnsafeSchema(f"{path}: expected Mapping[str, X]; Avro's keys are strings")
    shape = _shape(schema["values_schema"], f"{path}{{}}", resolve)
    keys = _shape(schema["keys_schema"], f"{path}{{}}", resolve).core
    inner = {**schema, "keys_schema": keys, "values_schema": shape.core, "strict": False}
    core = core_schema.no_info_after_validator_function(ReadOnly, cast(Any, inner))
    avro = {"type": "map", "values": shape.avro}
    return Shape(cast(Core, core), avro, lambda value: {key: shape.to_json(item) for key, item in value.items()})


def _nullable(schema: Core, path: str, resolve: Resolve) -> Shape:
    shape = _shape(schema["schema"], path, resolve)
    if isinstance(shape.avro, list):
        return shape
    to_json = shape.to_json
    return Shape({**schema, "schema": shape.core}, ["null", shape.avro], lambda value: None if value is None else to_json(value))


_SIMPLE: Final = {"bool": "boolean", "float": "double"}
_COMPOSED: Final[Mapping[str, Callable[[Core, str, Resolve], Shape]]] = {
    "str": _str, "bytes": _bytes, "int": _int, "datetime": _datetime, "date": _date, "uuid": _uuid, "decimal": _decimal, "enum": _enum,
    "model": _model, "tuple": _tuple, "dict": _dict, "nullable": _nullable,
}  # fmt: skip


def doc_of(declared: type) -> str:
    """The class's own docstring, without its indentation."""
    return inspect.cleandoc(declared.__dict__.get("__doc__") or "")


def _named(declared: type, path: str) -> str:
    if not _SYMBOL.fullmatch(declared.__name__):
        raise UnsafeSchema(f"{path}: expected a class name of ASCII letters, digits and underscores, found {declared.__name__}")
    return declared.__name__


def _refuse_mutable(annotation: object, path: str) -> None:
    origin = get_origin(annotation) or annotation
    if isinstance(origin, type) and origin in _INSTEAD:
        raise UnsafeSchema(f"{path}: expected {_INSTEAD[origin]}, which nobody can change after it was made; found {annotation}")
    for argument in get_args(annotation):
        if not isinstance(argument, str | bytes | int | float | date | Decimal | UUID):
            _refuse_mutable(argument, path)
