"""What the ledger keeps of a part of a join: the record as it lay on its topic, to be decoded again when the others are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from maypole.bus.ledger.outcome import decode_records, encode_records
from maypole.bus.ledger.port import Join
from maypole.bus.ports import Delivery, Record
from maypole.schemas.envelope import DEGRADED, Envelope, read_envelope, read_identity
from maypole.schemas.errors import Undecodable
from maypole.schemas.identifiers import EventId

_PLACE: Final = "part-place"


class Joined(NamedTuple):
    """A step of a join. `parts` by event type, those that came; `last` is the one that completed it, or came last before its time was up.

    `parents` are the ids of all of them, the last part's first.
    """

    parts: Mapping[str, Delivery]
    last: str | None
    parents: tuple[EventId, ...]
    expired: bool = False

    @property
    def arrived(self) -> Sequence[Delivery]:
        """All that came, the last part at the end."""
        return [*self.others, *([self.parts[self.last]] if self.last is not None else [])]

    @property
    def others(self) -> Sequence[Delivery]:
        return [delivery for event_type, delivery in self.parts.items() if event_type != self.last]

    @property
    def traceparents(self) -> Sequence[str]:
        """Of the other parts, as far as they can be told."""
        found = [envelope_of(part) for part in self.others]
        return [envelope.traceparent for envelope in found if envelope is not None and envelope.traceparent is not None]

    @property
    def degraded(self) -> bool:
        return any(name == DEGRADED for delivery in self.parts.values() for name, _ in delivery.headers)


class Kept(NamedTuple):
    """`due_ms`: when its join would have waited long enough if this was the first part, since the epoch; 0: nobody waits for it."""

    delivery: Delivery
    due_ms: int


def kept(delivery: Delivery, due_ms: int) -> bytes:
    place = b"%d %d %d %d" % (delivery.partition, delivery.offset, delivery.timestamp_ms, due_ms)
    return encode_records([Record(delivery.topic, delivery.key, delivery.value, [*delivery.headers, (_PLACE, place)])])


def taken(body: bytes) -> Kept:
    (record,) = decode_records(body)
    *headers, (_, place) = record.headers
    assert place is not None
    partition, offset, timestamp_ms, due_ms = map(int, place.split())
    return Kept(Delivery(record.topic, partition, offset, timestamp_ms, record.key, record.value, headers), due_ms)


def joined(join: Join, types: Sequence[str], last: str | None, *, expired: bool = False) -> Joined:
    """`types` are the parts in their declared order."""
    order = [last] if last is not None else []
    order += [event_type for event_type in types if event_type in join.parts and event_type != last]
    parts = {event_type: taken(join.parts[event_type].body).delivery for event_type in types if event_type in join.parts}
    return Joined(parts, last, tuple(join.parts[event_type].event_id for event_type in order), expired)


def latest(join: Join) -> Delivery | None:
    """The part that came last, by the broker's time; None where none has come."""
    parts = [taken(part.body).delivery for _, part in sorted(join.parts.items())]
    return max(parts, key=lambda part: part.timestamp_ms, default=None)


def envelope_of(part: Delivery) -> Envelope | None:
    """Of a part whose headers cannot be read, as much as can be told."""
    try:
        return read_envelope(part.headers)
    except Undecodable:
        return read_identity(part.headers)
