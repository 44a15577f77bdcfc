"""JSON to Avro and back, for events whose class this process does not have: only the schema says what they are.

JSON as pydantic writes it: times in RFC 3339, dates in ISO 8601, bytes in base64, decimals and UUIDs as strings.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from io import BytesIO
from typing import Any, Final, NoReturn
from uuid import UUID

from fastavro import schemaless_writer

from maypole.schemas.avro import Schema
from maypole.schemas.codec import HEADER_BYTES, MAGIC
from maypole.schemas.errors import Absent, ContractRefused
from maypole.schemas.logical import date_of_days, datetime_of_micros, datetime_of_millis, days_of, micros_of, unscaled_bytes_of
from maypole.schemas.nodes import MISSING, Array, Enum, Fixed, Kind, Logical, Map, Node, Primitive, Record, Union, is_null, title
from maypole.schemas.physical import physical

_BITS: Final = {Kind.INT: 31, Kind.LONG: 63}
_FLOAT_MAX: Final = 3.4028234663852886e38


def encode_json(schema: Schema, schema_id: int, data: object, event_type: str = "") -> bytes:
    """The value of a record. Raises `ContractRefused` naming the field, what was found and what was expected."""
    layout = physical(schema.node)
    prepared = _Reading(event_type).value(schema.node, layout, data, "")
    out = BytesIO()
    out.write(bytes([MAGIC]) + schema_id.to_bytes(HEADER_BYTES - 1, "big"))
    schemaless_writer(out, layout, prepared)
    return out.getvalue()


def to_json(value: object) -> Any:
    """A decoded event as JSON knows it."""
    match value:
        case Mapping():
            return {key: to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [to_json(item) for item in value]
        case bytes():
            return base64.b64encode(value).decode()
        case datetime() | date():
            return value.isoformat().replace("+00:00", "Z")
        case Decimal() | UUID():
            return str(value)
    return value


class _Reading:
    """JSON to what the codec writes with the physical layout: enums as indexes, times as numbers, unions by branch."""

    def __init__(self, event_type: str) -> None:
        self._event_type = event_type

    def value(self, node: Node, layout: Any, data: object, path: str) -> Any:
        match node:
            case Primitive():
                return self._primitive(node, data, path)
            case Enum(symbols=symbols):
                if not isinstance(data, str) or data not in symbols:
                    self._refuse(path, data, f"one of {', '.join(symbols)}")
                return symbols.index(data)
            case Fixed(size=size):
                found = self._bytes(data, path)
                return found if len(found) == size else self._refuse(path, data, f"base64 of {size} bytes")
            case Array(items):
                if not isinstance(data, list):
                    self._refuse(path, data, "a list")
                return [self.value(items, layout["items"], item, _at(path, index)) for index, item in enumerate(data)]
            case Map(values):
                return {key: self.value(values, layout["values"], item, _at(path, key)) for key, item in self._object(data, path).items()}
            case Record():
                return self._record(node, layout, data, path)
            case Union():
                return self._union(node, layout, data, path)

    def _record(self, node: Record, layout: Any, data: object, path: str) -> dict[str, Any]:
        found = self._object(data, path)
        names = {field.name for field in node.fields}
        for name in found:
            if name not in names:
                self._refuse(_at(path, name), found[name], f"no such field; the fields are {', '.join(sorted(names))}")
        prepared = {}
        for field, part in zip(node.fields, layout["fields"], strict=True):
            if field.name in found:
                given = found[field.name]
            elif field.default is not MISSING:
                given = _default(field.type, field.default)
            else:
                self._refuse(_at(path, field.name), Absent(), f"a value ({title(field.type)})")
            prepared[field.name] = self.value(field.type, part["type"], given, _at(path, field.name))
        return prepared

    def _union(self, node: Union, layout: Any, data: object, path: str) -> Any:
        if data is None and any(map(is_null, node.branches)):
            return None
        others = [(index, branch) for index, branch in enumerate(node.branches) if not is_null(branch)]
        if node.optional is not None:
            index, branch = others[0]
            part = layout[index]
            prepared = self.value(branch, part, data, path)
            return prepared if isinstance(branch, (Primitive, Enum)) else (part["name"] if "name" in part else part["type"], prepared)
        for index, branch in others:
            name = f"b{index}"
            try:
                prepared = self.value(branch, layout[index]["fields"][0]["type"], data, path)
            except ContractRefused:
                continue
            return layout[index]["name"], {name: prepared}
        return self._refuse(path, data, title(node))

    def _primitive(self, node: Primitive, data: object, path: str) -> Any:
        if node.logical is not None:
            return self._logical(node, node.logical, data, path)
        match node.kind, data:
            case Kind.NULL, None:
                return None
            case Kind.BOOLEAN, bool():
                return data
            case _, bool():
                pass
            case Kind.INT | Kind.LONG, int() if -(2 ** _BITS[node.kind]) <= data < 2 ** _BITS[node.kind]:
                return data
            case Kind.FLOAT | Kind.DOUBLE, int() | float():
                return self._float(node.kind, data, path)
            case Kind.STRING, str():
                return data
            case Kind.BYTES, _:
                return self._bytes(data, path)
        return self._refuse(path, data, title(node))

    def _logical(self, node: Primitive, logical: Logical, data: object, path: str) -> Any:
        text = data if isinstance(data, str) else ""
        try:
            match logical.name:
                case "uuid":
                    return str(UUID(text))
                case "date":
                    return days_of(date.fromisoformat(text))
                case "timestamp-micros" | "timestamp-millis":
                    at = datetime.fromisoformat(text)
                    if at.tzinfo is None:
                        self._refuse(path, data, "a time with its zone, as 2026-01-31T12:00:00Z")
                    return micros_of(at) // (1 if logical.name.endswith("micros") else 1000)
                case "decimal":
                    return self._decimal(logical, data, path)
        except (ValueError, OverflowError) as error:
            if isinstance(error, ContractRefused):
                raise
            self._refuse(path, data, {"uuid": "a UUID", "date": "a date as 2026-01-31"}.get(logical.name, "a time as 2026-01-31T12:00:00Z"))
        # Times of day and local times are numbers here: JSON has no form that everybody agrees on.
        return self._primitive(Primitive(node.kind), data, path)

    def _decimal(self, logical: Logical, data: object, path: str) -> bytes:
        rule = f"a decimal of {logical.precision} digits, {logical.scale} of them after the point"
        if isinstance(data, bool) or not isinstance(data, (str, int, float)):
            self._refuse(path, data, rule)
        try:
            number = Decimal(str(data))
        except InvalidOperation:
            self._refuse(path, data, rule)
        if not number.is_finite() or number != round(number, logical.scale) or abs(number.scaleb(logical.scale)) >= 10**logical.precision:
            self._refuse(path, data, rule)
        return unscaled_bytes_of(number, logical.scale)

    def _float(self, kind: Kind, data: float, path: str) -> float:
        if not math.isfinite(data) or (kind is Kind.FLOAT and abs(data) > _FLOAT_MAX):
            self._refuse(path, data, "a finite number")
        return float(data)

    def _bytes(self, data: object, path: str) -> bytes:
        try:
            return base64.b64decode(data, validate=True) if isinstance(data, str) else self._refuse(path, data, "bytes in base64")
        except ValueError as error:
            if isinstance(error, ContractRefused):
                raise
            self._refuse(path, data, "bytes in base64")

    def _object(self, data: object, path: str) -> dict[str, Any]:
        return data if isinstance(data, dict) else self._refuse(path, data, "a JSON object")

    def _refuse(self, path: str, data: object, rule: str) -> NoReturn:
        raise ContractRefused(field=path, value=data, rule=rule, event_type=self._event_type)


def _default(node: Node, default: Any) -> Any:
    """A default as a schema writes it, in the form that this module reads: only bytes differ (Latin-1 there, base64 here)."""
    branch = node.branches[0] if isinstance(node, Union) else node
    if isinstance(default, str) and isinstance(branch, (Primitive, Fixed)) and (isinstance(branch, Fixed) or branch.kind is Kind.BYTES):
        raw = default.encode("latin-1")
        if branch.logical is not None and branch.logical.name == "decimal":
            return str(Decimal(int.from_bytes(raw, "big", signed=True)).scaleb(-branch.logical.scale))
        return base64.b64encode(raw).decode()
    if isinstance(branch, Primitive) and branch.logical is not None and isinstance(default, int):
        return _moment(branch.logical.name, default)
    return default


def _moment(logical: str, number: int) -> Any:
    readers = {"date": date_of_days, "timestamp-micros": datetime_of_micros, "timestamp-millis": datetime_of_millis}
    return to_json(readers[logical](number)) if logical in readers else number


def _at(path: str, part: object) -> str:
    return f"{path}.{part}" if path else str(part)
