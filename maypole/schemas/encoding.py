"""From an event to what fastavro writes with the physical schema. Built once per class; None: a value is written as it is."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from maypole.schemas.logical import days_of, micros_of, unscaled_bytes_of
from maypole.schemas.nodes import Array, Enum, Logical, Map, Node, Primitive, Record, Union, is_null, title

Preparation = Callable[[Any], Any] | None

_values = attrgetter("__dict__")


def preparation(record: Node, layout: Any) -> Callable[[Any], dict[str, Any]]:
    """How an event becomes the dict that is written; `layout` is the record's physical schema. The event is never changed."""
    if not isinstance(record, Record):
        message = f"expected a record, found {title(record)}"
        raise TypeError(message)
    return _record(record, layout)


def _record(record: Record, layout: Any) -> Callable[[Any], dict[str, Any]]:
    prepared = ((field.name, _prepare(field.type, part["type"])) for field, part in zip(record.fields, layout["fields"], strict=True))
    changes = tuple((name, prepare) for name, prepare in prepared if prepare is not None)
    if not changes:
        return _values

    def values_of(event: Any) -> dict[str, Any]:
        values: dict[str, Any] = event.__dict__.copy()
        for name, prepare in changes:
            values[name] = prepare(values[name])
        return values

    return values_of


def _prepare(node: Node, layout: Any) -> Preparation:
    match node:
        case Primitive(logical=Logical(name="timestamp-micros")):
            return micros_of
        case Primitive(logical=Logical(name="date")):
            return days_of
        case Primitive(logical=Logical(name="uuid")):
            return str
        case Primitive(logical=Logical(name="decimal", scale=scale)):
            return lambda value: unscaled_bytes_of(value, scale)
        case Enum(symbols=symbols):
            # Members of a str enum are equal to their values, and hash like them.
            return {symbol: index for index, symbol in enumerate(symbols)}.__getitem__
        case Record():
            return _record(node, layout)
        case Array(items):
            item = _prepare(items, layout["items"])
            return list if item is None else lambda values: [item(value) for value in values]
        case Map(values):
            entry = _prepare(values, layout["values"])
            return None if entry is None else lambda mapping: {key: entry(value) for key, value in mapping.items()}
        case Union(branches):
            return next(_optional(branch, part) for branch, part in zip(branches, layout, strict=True) if not is_null(branch))
    return None


def _optional(node: Node, layout: Any) -> Preparation:
    prepare = _prepare(node, layout)
    if isinstance(node, Primitive | Enum):
        return None if prepare is None else _unless_none(prepare)
    # Named for the codec, which otherwise tries a whole record or array against every branch before it writes it.
    branch = layout["name"] if isinstance(node, Record) else layout["type"]
    return lambda value: None if value is None else (branch, prepare(value) if prepare else value)


def _unless_none(prepare: Callable[[Any], Any]) -> Preparation:
    return lambda value: None if value is None else prepare(value)
