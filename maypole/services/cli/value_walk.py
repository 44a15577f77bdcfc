"""Reading a value field by field, for a person: as far as it can be read, and then the byte and the field where it broke.

The codec refuses a value as a whole, which is right for an agent. This is slower and keeps what it has read so far.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from maypole.schemas.codec import HEADER_BYTES, ITEMS_MAX
from maypole.schemas.nodes import Array, Enum, Fixed, Kind, Map, Node, Primitive, Record, Union, title
from maypole.schemas.resolution import conversion

_FLOATS: Final = {Kind.FLOAT: struct.Struct("<f"), Kind.DOUBLE: struct.Struct("<d")}
_VARINT_BYTES_MAX: Final = 10
_BITS: Final = {Kind.INT: 31, Kind.LONG: 63}

Put = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Break:
    """`offset` in bytes from the beginning of the value; `field` is a dotted path, empty for the value as a whole."""

    offset: int
    field: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"byte {self.offset}, {self.field or 'the value'}: expected {self.expected}, found {self.found}"

    def form(self) -> Mapping[str, Any]:
        return {"offset": self.offset, "field": self.field, "expected": self.expected, "found": self.found}


def walk(node: Node, value: bytes) -> tuple[Any, Break | None]:
    """What could be read of a value in the wire format, and where it broke; None: it did not."""
    walker, read = _Walk(value), [None]
    try:
        walker.over(node, "", lambda found: read.__setitem__(0, found))
        if walker.position < len(value):
            raise _Broken(Break(walker.position, "", "the end of the value", f"{len(value) - walker.position} more bytes"))
    except _Broken as broken:
        return read[0], broken.at
    return read[0], None


class _Broken(Exception):
    def __init__(self, at: Break) -> None:
        super().__init__(str(at))
        self.at = at


class _Walk:
    def __init__(self, value: bytes) -> None:
        self._value = value
        self.position = HEADER_BYTES
        self._items = 0

    def over(self, node: Node, path: str, put: Put) -> None:
        """`put` takes what was read; of a record, an array or a map before its parts, so that they stay when one breaks."""
        began = self.position
        match node:
            case Record(fields=fields):
                record: dict[str, Any] = {}
                put(record)
                for field in fields:
                    self.over(field.type, _at(path, field.name), _into(record, field.name))
            case Array(items):
                array: list[Any] = []
                put(array)
                for index in self._blocks(path):
                    self.over(items, _at(path, index), array.append)
            case Map(values):
                found: dict[str, Any] = {}
                put(found)
                for index in self._blocks(path):
                    key = self._text(_at(path, f"key {index}"))
                    self.over(values, _at(path, key), _into(found, key))
            case Union(branches):
                index = self._long(path, "the branch of a union", 31)
                if not 0 <= index < len(branches):
                    raise self._broken(began, path, f"a branch from 0 to {len(branches) - 1} of a union", str(index))
                self.over(branches[index], path, put)
            case Enum(symbols=symbols):
                index = self._long(path, title(node), 31)
                if not 0 <= index < len(symbols):
                    raise self._broken(began, path, f"a symbol from 0 to {len(symbols) - 1} of {title(node)}", str(index))
                put(symbols[index])
            case Fixed() | Primitive():
                put(self._meant(node, path, self._leaf(node, path), began))

    def _leaf(self, node: Fixed | Primitive, path: str) -> Any:
        if isinstance(node, Fixed):
            return self._take(node.size, path, title(node))
        match node.kind:
            case Kind.NULL:
                return None
            case Kind.BOOLEAN:
                (byte,) = self._take(1, path, "boolean")
                return bool(byte)
            case Kind.INT | Kind.LONG:
                return self._long(path, title(node), _BITS[node.kind])
            case Kind.FLOAT | Kind.DOUBLE:
                form = _FLOATS[node.kind]
                return form.unpack(self._take(form.size, path, f"{title(node)} of {form.size} bytes"))[0]
            case Kind.BYTES:
                return self._sized(path)
            case Kind.STRING:
                return self._text(path)

    def _meant(self, node: Fixed | Primitive, path: str, raw: Any, began: int) -> Any:
        if node.logical is None:
            return raw
        try:
            convert = conversion(node, node, frozen=True)
            return raw if convert is None else convert(raw)
        except (ValueError, OverflowError, ArithmeticError) as error:
            raise self._broken(began, path, title(node), f"{raw!r} ({error})") from None

    def _text(self, path: str) -> str:
        data = self._sized(path)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            at = self.position - len(data) + error.start
            raise self._broken(at, path, "UTF-8 text", f"{data[error.start : error.start + 8].hex(' ')} ({error.reason})") from None

    def _sized(self, path: str) -> bytes:
        began = self.position
        length = self._long(path, "a length", 63)
        if length < 0:
            raise self._broken(began, path, "a length of at least 0", str(length))
        return self._take(length, path, f"{length} bytes")

    def _blocks(self, path: str) -> Iterator[int]:
        """The index of each item, while there are more."""
        index = 0
        while True:
            began = self.position
            count = self._long(path, "a number of items", 63)
            if count == 0:
                return
            if count < 0:
                count = -count
                self._long(path, "a size of items in bytes", 63)
            self._items += count
            if self._items > ITEMS_MAX:
                raise self._broken(began, path, f"at most {ITEMS_MAX} items in a value", f"{self._items}")
            for _ in range(count):
                yield index
                index += 1

    def _take(self, size: int, path: str, expected: str) -> bytes:
        data = self._value[self.position : self.position + size]
        if len(data) < size:
            there = "1 byte" if len(data) == 1 else f"{len(data)} bytes"
            raise self._broken(self.position, path, expected, f"{there} before the end of the value")
        self.position += size
        return data

    def _long(self, path: str, expected: str, bits: int) -> int:
        began, number = self.position, 0
        for index in range(_VARINT_BYTES_MAX):
            (byte,) = self._take(1, path, expected)
            number |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                found = (number >> 1) ^ -(number & 1)
                if -(1 << bits) <= found < 1 << bits:
                    return found
                raise self._broken(began, path, f"{expected} of {bits + 1} bits", str(found))
        raise self._broken(began, path, expected, "a number without an end")

    def _broken(self, offset: int, path: str, expected: str, found: str) -> _Broken:
        return _Broken(Break(offset, path, expected, found))


def _into(container: dict[str, Any], name: str) -> Put:
    return lambda found: container.__setitem__(name, found)


def _at(path: str, part: object) -> str:
    return f"{path}.{part}" if path else str(part)
