"""Counting what a value will cost before it is decoded.

Every item takes at least a byte, so a value of n bytes has at most n items, and only large values need this walk: it
follows the bytes with the writer's schema, strictly, and builds nothing.
"""

from __future__ import annotations

from maypole.schemas.errors import Undecodable
from maypole.schemas.nodes import Array, Enum, Fixed, Kind, Map, Node, Primitive, Record, Union

_WIDTH = {Kind.NULL: 0, Kind.BOOLEAN: 1, Kind.FLOAT: 4, Kind.DOUBLE: 8}


def has_items(node: Node) -> bool:
    """Whether a value can hold more items than its schema has fields."""
    match node:
        case Array() | Map():
            return True
        case Union(branches):
            return any(has_items(branch) for branch in branches)
        case Record(fields=fields):
            return any(has_items(field.type) for field in fields)
    return False


def check_items(node: Node, value: bytes, start: int, items_max: int) -> None:
    """Raise `Undecodable` if the value is truncated or holds more than `items_max` items in all its arrays and maps."""
    _Walk(value, start, items_max).over(node)


class _Walk:
    def __init__(self, value: bytes, position: int, items_max: int) -> None:
        self._value = value
        self._position = position
        self._items_max = items_max
        self._items = 0

    def over(self, node: Node) -> None:
        match node:
            case Primitive(Kind.STRING | Kind.BYTES):
                self._skip(self._long())
            case Primitive(Kind.INT | Kind.LONG) | Enum():
                self._long()
            case Primitive(kind):
                self._skip(_WIDTH[kind])
            case Fixed(size=size):
                self._skip(size)
            case Record(fields=fields):
                for field in fields:
                    self.over(field.type)
            case Union(branches):
                index = self._long()
                if not 0 <= index < len(branches):
                    message = f"expected a branch from 0 to {len(branches) - 1} of a union, found {index}"
                    raise Undecodable(message)
                self.over(branches[index])
            case Array(items):
                self._blocks(None, items)
            case Map(values):
                self._blocks(Primitive(Kind.STRING), values)

    def _blocks(self, key: Node | None, items: Node) -> None:
        while count := self._long():
            if count < 0:
                count = -count
                self._long()
            self._items += count
            if self._items > self._items_max:
                message = f"expected at most {self._items_max} items in a value, found more"
                raise Undecodable(message)
            if key is None and isinstance(items, Primitive) and items.kind in _WIDTH:
                self._skip(count * _WIDTH[items.kind])
                continue
            for _ in range(count):
                if key is not None:
                    self.over(key)
                self.over(items)

    def _skip(self, length: int) -> None:
        if not 0 <= length <= len(self._value) - self._position:
            message = f"expected {length} bytes at offset {self._position}, found {len(self._value) - self._position}"
            raise Undecodable(message)
        self._position += length

    def _long(self) -> int:
        value = shift = 0
        for position in range(self._position, min(self._position + 10, len(self._value))):
            byte = self._value[position]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                self._position = position + 1
                return (value >> 1) ^ -(value & 1)
            shift += 7
        message = f"expected a number at offset {self._position}, found {'an endless one' if shift >= 70 else 'the end of the value'}"
        raise Undecodable(message)
