"""Records that nobody should have written: values and headers of good ones, bent in every way that a wire can carry."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from maypole.bus.ports import Record
from maypole.schemas.envelope import (
    CAUSATION_ID,
    CHOREOGRAPHY,
    CONTENT_TYPE,
    CORRELATION_ID,
    DATA_REF,
    ID,
    IDEMPOTENCY_KEY,
    OBSERVER,
    SOURCE,
    SPEC_VERSION,
    STATE_VERSION,
    SUBJECT,
    TIME,
    TRACEPARENT,
    TRACESTATE,
    TYPE,
)  # fmt: skip

_HeaderList = list[tuple[str, bytes | None]]
_NAMES: Final = (
    CAUSATION_ID, CHOREOGRAPHY, CONTENT_TYPE, CORRELATION_ID, DATA_REF, ID, IDEMPOTENCY_KEY, OBSERVER, SOURCE, SPEC_VERSION,
    STATE_VERSION, SUBJECT, TIME, TRACEPARENT, TRACESTATE, TYPE, "dlq-reason", "dlq-replays", "x-foreign", "",
)  # fmt: skip
_VALUES: Final[tuple[bytes | None, ...]] = (
    None, b"", b"\x00", b"\xff\xfe", b"0", b"-1", b"1", b"2147483647", b"9" * 4400, b" 7 ", b"1_000", "٣".encode(), b"1.0", b"true",
    b"a" * 2000, b"\xed\xa0\x80", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"00-zz", b"application/json", b"application/avro",
)  # fmt: skip
_LENGTHS: Final = (0, 1, -1, 63, 64, 2**15, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**31), -(2**62), -(2**63))
_SCHEMA_IDS: Final = (0, 1, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 2**32 - 1)
_BENDS_MAX: Final = 3


def bent(record: Record, chance: random.Random) -> Record:
    """The same record after up to three bends; now and then none, because a good one must come through among the others."""
    value, key, headers = record.value, record.key, list(record.headers)
    for _ in range(chance.randint(0, _BENDS_MAX)):
        what = chance.random()
        if what < 0.5:
            value = chance.choice(_OF_VALUES)(value, chance)
        elif what < 0.95:
            chance.choice(_OF_HEADERS)(headers, chance)
        else:
            key = chance.choice((None, b"", b"\xff", chance.randbytes(12), b"k" * 3000))
    return record._replace(key=key, value=value, headers=headers)


# Of values. The first five bytes are the wire format's frame.


def _flip(value: bytes | None, chance: random.Random) -> bytes | None:
    if not value:
        return b"\x00"
    found = bytearray(value)
    for _ in range(chance.randint(1, 4)):
        found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    return bytes(found)


def _cut(value: bytes | None, chance: random.Random) -> bytes | None:
    return (value or b"")[: chance.randint(0, len(value or b""))]


def _grow(value: bytes | None, chance: random.Random) -> bytes | None:
    return (value or b"") + chance.randbytes(chance.randint(1, 40))


def _splice(value: bytes | None, chance: random.Random) -> bytes | None:
    """A length or a number that nothing follows: what makes a careless decoder allocate."""
    found = value or b""
    place = chance.randint(min(5, len(found)), len(found))
    return found[:place] + _varint(chance.choice(_LENGTHS)) + found[place + chance.randint(0, 3) :]


def _shuffle(value: bytes | None, chance: random.Random) -> bytes | None:
    found = value or b""
    start, end = sorted((chance.randint(0, len(found)), chance.randint(0, len(found))))
    return found + found[start:end] * chance.randint(1, 20)


def _frame(value: bytes | None, chance: random.Random) -> bytes | None:
    schema_id = chance.choice((*_SCHEMA_IDS, chance.getrandbits(32)))
    return bytes([chance.choice((0, 0, 0, 1, 255))]) + schema_id.to_bytes(4, "big") + (value or b"")[5:]


def _other(value: bytes | None, chance: random.Random) -> bytes | None:
    return chance.choice((None, b"", b"\x00", b"{}", b"null", (value or b"")[:5], chance.randbytes(chance.randint(1, 400))))


def _noise(value: bytes | None, chance: random.Random) -> bytes | None:
    """A frame that is right, and anything behind it."""
    return (value or b"")[:5] + chance.randbytes(chance.randint(0, 200))


_OF_VALUES: Final[Sequence[Callable[[bytes | None, random.Random], bytes | None]]] = (
    _flip, _cut, _grow, _splice, _shuffle, _frame, _other, _noise,
)  # fmt: skip


def _varint(number: int) -> bytes:
    """Zigzag, as Avro has it."""
    rest = ((number << 1) ^ (number >> 63)) & (2**64 - 1)
    found = bytearray()
    while rest >= 0x80:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)


# Of headers, in place.


def _drop(headers: _HeaderList, chance: random.Random) -> None:
    if headers:
        headers.pop(chance.randrange(len(headers)))


def _repeat(headers: _HeaderList, chance: random.Random) -> None:
    if headers:
        headers.insert(chance.randrange(len(headers)), chance.choice(headers))


def _replace(headers: _HeaderList, chance: random.Random) -> None:
    if headers:
        place = chance.randrange(len(headers))
        headers[place] = (headers[place][0], _any_value(chance))


def _add(headers: _HeaderList, chance: random.Random) -> None:
    headers.insert(chance.randint(0, len(headers)), (chance.choice(_NAMES), _any_value(chance)))


def _flood(headers: _HeaderList, chance: random.Random) -> None:
    headers.extend((f"x-{number}", b"x") for number in range(chance.randint(1, 200)))


def _any_value(chance: random.Random) -> bytes | None:
    return chance.choice(_VALUES) if chance.random() < 0.7 else chance.randbytes(chance.randint(0, 60))


_OF_HEADERS: Final[Sequence[Callable[[_HeaderList, random.Random], None]]] = (_drop, _repeat, _replace, _replace, _add, _add, _flood)
