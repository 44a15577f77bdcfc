"""What may go wrong on the broker in memory, each a function that a simulation sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from maypole.bus.ports import Delivery, Record


class IncarnationDead(ConnectionError):
    """The process that holds this port was killed: whatever its `finally` blocks still try must not happen."""


def _no_reason(record: Record) -> str | None:
    return None


def _never(record: Record) -> bool:
    return False


def _not_again(delivery: Delivery) -> bool:
    return False


def _at_once(record: Record) -> float:
    return 0.0


def _now(records: Sequence[Record]) -> float:
    return 0.0


def _without_delay(group: str) -> float:
    return 0.0


@dataclass(slots=True)
class Faults:
    """Asked once per record, in the order of the log, unless it says otherwise; seconds are the loop's, so virtual where time is."""

    refuse: Callable[[Record], str | None] = _no_reason
    """A reason: `publish` raises `PublishRefused`."""

    append_twice: Callable[[Record], bool] = _never
    """The record is written twice, as when an acknowledgement was lost and a publication repeated."""

    write_after: Callable[[Sequence[Record]], float] = _now
    """Seconds from `publish` to writing, asked once per call. Who dies in between may find its records written all the same."""

    acknowledge_after: Callable[[Record], float] = _at_once
    """Seconds from writing to the acknowledgement."""

    arrive_after: Callable[[Record], float] = _at_once
    """Seconds from writing until a consumer can read it."""

    commit_after: Callable[[str], float] = _without_delay
    """Seconds from a group's commit until it stands, asked once per call; it stands also when the member has died meanwhile."""

    deliver_again: Callable[[Delivery], bool] = _not_again
    """After the batch with this delivery the consumer goes back to it: it and what follows come again, in order."""
