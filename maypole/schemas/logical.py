"""Avro's logical types: values of Python on one side, what stands on the wire on the other.

They are converted here and not by the codec: its converters round decimals in silence, take naive times for UTC and
cost three times as much.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Final

from maypole.schemas.errors import Undecodable

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LOCAL_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - Avro's local timestamps have no zone
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_DAY_MICROS: Final = 24 * 60 * 60 * 1_000_000
# Wide enough for every precision that a schema may declare, so that scaling never rounds.
_EXACT: Final = Context(prec=2100, Emin=-9999, Emax=9999)


def micros_of(value: datetime) -> int:
    """Microseconds since 1970 in UTC."""
    delta = value - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def datetime_of_micros(micros: int) -> datetime:
    return _EPOCH + timedelta(0, 0, micros)


def datetime_of_millis(millis: int) -> datetime:
    return _EPOCH + timedelta(0, 0, 0, millis)


def local_of_micros(micros: int) -> datetime:
    return _LOCAL_EPOCH + timedelta(0, 0, micros)


def local_of_millis(millis: int) -> datetime:
    return _LOCAL_EPOCH + timedelta(0, 0, 0, millis)


def time_of_micros(micros: int) -> time:
    if not 0 <= micros < _DAY_MICROS:
        message = f"expected a time of day in microseconds, found {micros}"
        raise Undecodable(message)
    return (_LOCAL_EPOCH + timedelta(0, 0, micros)).time()


def time_of_millis(millis: int) -> time:
    return time_of_micros(millis * 1000)


def days_of(value: date) -> int:
    """Days since 1970."""
    return value.toordinal() - _EPOCH_ORDINAL


def date_of_days(days: int) -> date:
    return date.fromordinal(days + _EPOCH_ORDINAL)


def unscaled_bytes_of(value: Decimal, scale: int) -> bytes:
    """The unscaled number as the shortest two's complement, big-endian."""
    unscaled = int(value.scaleb(scale, _EXACT))
    return unscaled.to_bytes((unscaled.bit_length() + 8) // 8, "big", signed=True)


def decimal_of(data: bytes, precision: int, scale: int) -> Decimal:
    # Compared by length first: turning a megabyte into a number takes seconds.
    if len(data) <= precision:
        unscaled = int.from_bytes(data, "big", signed=True)
        if abs(unscaled) < 10**precision:
            return Decimal(unscaled).scaleb(-scale, _EXACT)
    message = f"expected a decimal of at most {precision} digits, found {len(data)} bytes that hold more"
    raise Undecodable(message)
