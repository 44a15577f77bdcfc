"""An event with every kind of field. Its annotations are evaluated by pydantic."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from maypole.schemas.event import Event, Value


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(Value):
    name: str


class Everything(Event, type="test.everything"):
    text: str
    flag: bool
    count: int
    ratio: float
    raw: bytes
    at: datetime
    day: date
    price: Annotated[Decimal, Field(max_digits=6, decimal_places=2)]
    ident: UUID
    colour: Colour
    inner: Inner
    many: tuple[Inner, ...]
    names: Mapping[str, int]
    maybe: str | None = None
    maybe_inner: Inner | None = None
    maybe_many: tuple[str, ...] | None = None
    level: int = 3
    fee: Annotated[Decimal, Field(max_digits=6, decimal_places=2)] = Decimal("1.50")
    since: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    mark: bytes = b"\x01\xfe"
