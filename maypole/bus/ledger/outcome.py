"""The bytes of a recorded outcome: the journal record and the outputs, as they left the process.

A version byte, then for each record its topic, key, value and headers; every field after its length. Lengths take one
byte below 254; 254 announces four more, big-endian; 255 says that there is no value. Names of headers are few and
known, so they take one byte: their place in `_NAMES`, which only ever grows at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from maypole.bus.ports import Record

_VERSION: Final = b"\x01"
_LONG: Final = 254
_NONE: Final = 255
_NAMES: Final = (
    "content-type", "ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_subject", "ce_correlationid",
    "ce_causationid", "ce_idempotencykey", "ce_choreography", "ce_observer", "ce_dataref", "ce_datadigest",
    "ce_stateversion", "traceparent", "tracestate",
)  # fmt: skip
_OTHER: Final = 255
_SHORT: Final = [bytes([length]) for length in range(_LONG)]
_CODES: Final = {name: bytes([place]) for place, name in enumerate(_NAMES)}


class OutcomeUnreadable(ValueError):
    """These bytes are not a recorded outcome that this version can read."""


def encode_records(records: Sequence[Record]) -> bytes:
    pieces = [_VERSION]
    for topic, key, value, headers in records:
        for field in (topic.encode(), key, value):
            _put(pieces, field)
        pieces.append(_length(len(headers)))
        for name, content in headers:
            code = _CODES.get(name)
            if code is None:
                pieces.append(bytes([_OTHER]))
                _put(pieces, name.encode())
            else:
                pieces.append(code)
            _put(pieces, content)
    return b"".join(pieces)


def decode_records(data: bytes) -> Sequence[Record]:
    """Raises `OutcomeUnreadable`."""
    if data[:1] != _VERSION:
        raise OutcomeUnreadable(f"expected a recorded outcome of version {_VERSION[0]}, found {data[:1]!r}")
    try:
        return _records(data)
    except (IndexError, UnicodeDecodeError) as error:
        raise OutcomeUnreadable(f"expected a whole recorded outcome, found {len(data)} bytes that end or break early: {error}") from None


def _put(pieces: list[bytes], field: bytes | None) -> None:
    if field is None:
        pieces.append(b"\xff")
    else:
        pieces.append(_length(len(field)))
        pieces.append(field)


def _length(length: int) -> bytes:
    return _SHORT[length] if length < _LONG else bytes([_LONG]) + length.to_bytes(4, "big")


def _records(data: bytes) -> list[Record]:
    end = len(data)
    at = 1
    records = []

    def length() -> int | None:
        nonlocal at
        code = data[at]
        at += 1
        if code == _NONE:
            return None
        if code < _LONG:
            return code
        if at + 4 > end:
            raise IndexError("in a length")
        at += 4
        return int.from_bytes(data[at - 4 : at], "big")

    def field() -> bytes | None:
        nonlocal at
        size = length()
        if size is None:
            return None
        if at + size > end:
            raise IndexError("in a field")
        at += size
        return data[at - size : at]

    def text() -> str:
        found = field()
        if found is None:
            raise IndexError("a name is missing")
        return found.decode()

    while at < end:
        topic, key, value = text(), field(), field()
        count = length()
        if count is None:
            raise IndexError("the number of headers is missing")
        headers: list[tuple[str, bytes | None]] = []
        for _ in range(count):
            code = data[at]
            at += 1
            headers.append((text() if code == _OTHER else _NAMES[code], field()))
        records.append(Record(topic, key, value, headers))
    return records
