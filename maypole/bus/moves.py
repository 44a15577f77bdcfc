"""What a record on a retry topic says beside its event: where it came from, when it is due, and what it waits behind.

Key, value and headers are the original's, unchanged; what is added goes again when the record comes back, so that contract,
ids and dead letters are those of the place where it first lay. The step's row keeps the same words: who meets the step by
another way (an original that a crash brought back, a copy that was written twice) says them again instead of deciding anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

from maypole.bus.ledger.outcome import OutcomeUnreadable, decode_records, encode_records
from maypole.bus.ledger.port import Row
from maypole.bus.ledger.step import State
from maypole.bus.ports import Delivery, Headers, Record
from maypole.schemas.envelope import rfc3339
from maypole.schemas.identifiers import StepId
from maypole.schemas.topics import retry_delay

PREFIX: Final = "retry-"
RETRY_DUE: Final = "retry-due"
RETRY_ATTEMPT: Final = "retry-attempt"
RETRY_TOPIC: Final = "retry-topic"
RETRY_PARTITION: Final = "retry-partition"
RETRY_OFFSET: Final = "retry-offset"
RETRY_TIMESTAMP: Final = "retry-timestamp"
"""The broker's time of the original, milliseconds since the epoch: a repetition must see the same."""
RETRY_BEHIND: Final = "retry-behind"
"""The ids of the steps that must be at their end first, separated by commas."""
RETRY_EXCUSED: Final = "retry-excused"
"""How many of the attempts before do not count, because an outage answers for them."""
RETRY_REPLAYS: Final = "retry-replays"
"""Which run of a redriven record this is; on the topic without a delay `dlq-replays` says it."""
REPLAYS: Final = "dlq-replays"

ADDED: Final = frozenset(
    {RETRY_DUE, RETRY_ATTEMPT, RETRY_TOPIC, RETRY_PARTITION, RETRY_OFFSET, RETRY_TIMESTAMP, RETRY_BEHIND, RETRY_EXCUSED, RETRY_REPLAYS}
)
_DIGITS_MAX: Final = 19  # of an offset


class Origin(NamedTuple):
    """Where the record lay that the agent was first given."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class HeaderUnreadable(ValueError):
    """Names the header that is missing or cannot be read."""


class Move(NamedTuple):
    """`attempt` is the one that the record is for, counted from 1; `due_ms`: not before, milliseconds since the epoch."""

    origin: Origin
    timestamp_ms: int
    attempt: int
    due_ms: int
    behind: tuple[StepId, ...] = ()
    replays: int = 0
    """Above 0 for a record that was redriven: its run is a step of its own."""
    excused: int = 0

    def headers(self) -> Headers:
        added = [
            (RETRY_DUE, rfc3339(self.due_ms).encode()),
            (RETRY_ATTEMPT, b"%d" % self.attempt),
            (RETRY_TOPIC, self.origin.topic.encode()),
            (RETRY_PARTITION, b"%d" % self.origin.partition),
            (RETRY_OFFSET, b"%d" % self.origin.offset),
            (RETRY_TIMESTAMP, b"%d" % self.timestamp_ms),
        ]
        if self.behind:
            added.append((RETRY_BEHIND, ",".join(self.behind).encode()))
        if self.replays:
            added.append((RETRY_REPLAYS, b"%d" % self.replays))
        if self.excused:
            added.append((RETRY_EXCUSED, b"%d" % self.excused))
        return added


class Moved(NamedTuple):
    """A step that waits on a retry topic."""

    topic: str
    move: Move

    def record(self, original: Delivery) -> Record:
        return Record(self.topic, original.key, original.value, [*original.headers, *self.move.headers()])

    def place(self) -> Record:
        """What the step's row keeps: all but the event."""
        return Record(self.topic, None, None, self.move.headers())

    def recorded(self) -> bytes:
        return encode_records([self.place()])


def moved_of(row: Row | None) -> Moved | None:
    """Where the step waits for its next attempt, or to be told; None where it does not wait, as far as its row says."""
    if row is None or not row.step.waits or not row.outcome:
        return None
    try:
        record = next(filter(is_place, decode_records(row.outcome)))
        return Moved(record.topic, _move(dict(record.headers), 0, 0))
    except (StopIteration, OutcomeUnreadable, HeaderUnreadable):
        return None  # not ours: the step begins as if it had never moved


def excused_in(row: Row | None) -> int:
    """How many attempts at a step that has not come to its end do not count, as its row says."""
    if row is None or row.step.state is not State.STARTED or not row.outcome:
        return 0
    try:
        (record,) = decode_records(row.outcome)
        headers = dict(record.headers)
        return number_in(headers, RETRY_EXCUSED) if RETRY_EXCUSED in headers else 0
    except (OutcomeUnreadable, HeaderUnreadable, ValueError):
        return 0


def excusing(row: Row | None, excused: int) -> bytes:
    """What the row keeps once so many attempts do not count. Where the step waits stays what it was."""
    moved = moved_of(row)
    if moved is not None:
        return moved._replace(move=moved.move._replace(excused=excused)).recorded()
    return encode_records([Record("", None, None, [(RETRY_EXCUSED, b"%d" % excused)])])


def is_place(record: Record) -> bool:
    """Whether a row's record is about where its step waits, and nothing that is to be published. It outlives the step's end."""
    return record.key is None and record.value is None and any(name in ADDED for name, _ in record.headers)


def opened(agent: str, record: Delivery) -> tuple[Delivery, Move]:
    """The original, as it lay where it came from, and what was added to it. Raises `HeaderUnreadable`."""
    headers = dict(record.headers)
    redriven = retry_delay(agent, record.topic) == 0 and headers.get(REPLAYS) is not None
    move = _move(headers, record.timestamp_ms, number_in(headers, REPLAYS) if redriven else 0)
    origin = move.origin
    left = tuple((name, value) for name, value in record.headers if name not in ADDED)
    return Delivery(origin.topic, origin.partition, origin.offset, move.timestamp_ms, record.key, record.value, left), move


def origin_in(headers: Mapping[str, bytes | None]) -> Origin:
    return Origin(text_in(headers, RETRY_TOPIC), number_in(headers, RETRY_PARTITION), number_in(headers, RETRY_OFFSET))


def text_in(headers: Mapping[str, bytes | None], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise HeaderUnreadable(f"expected text in the header {name}, found {'none' if value is None else 'nothing in it'}")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise HeaderUnreadable(f"expected UTF-8 text in the header {name}, found {value[:80]!r} (byte {error.start})") from None


def number_in(headers: Mapping[str, bytes | None], name: str) -> int:
    text = text_in(headers, name)
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise HeaderUnreadable(f"expected a whole number in the header {name}, found {text[:80]!r}")
    return int(text)


def _move(headers: Mapping[str, bytes | None], timestamp_ms: int, replays: int) -> Move:
    return Move(
        origin_in(headers),
        number_in(headers, RETRY_TIMESTAMP) if RETRY_TIMESTAMP in headers else timestamp_ms,
        max(1, number_in(headers, RETRY_ATTEMPT)),
        time_in(headers, RETRY_DUE),
        tuple(StepId(each) for each in text_in(headers, RETRY_BEHIND).split(",")) if RETRY_BEHIND in headers else (),
        number_in(headers, RETRY_REPLAYS) if RETRY_REPLAYS in headers else replays,
        number_in(headers, RETRY_EXCUSED) if RETRY_EXCUSED in headers else 0,
    )


def time_in(headers: Mapping[str, bytes | None], name: str) -> int:
    text = text_in(headers, name)
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError("no zone")
        return round(at.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise HeaderUnreadable(f"expected a time of RFC 3339 in the header {name}, found {text[:80]!r}") from None
