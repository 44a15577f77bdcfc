"""What a step was given, as its row keeps it: enough to undo the step, and to run it again, long after its record has gone.

The same words as on a retry topic, so that whoever runs it again only has to publish them.
"""

from __future__ import annotations

from collections.abc import Sequence

from maypole.bus.ledger.outcome import decode_records, encode_records
from maypole.bus.ledger.port import Row
from maypole.bus.moves import Move, Moved, Origin, opened
from maypole.bus.ports import Delivery, Record
from maypole.schemas.topics import retry_topic


class InputUnreadable(ValueError):
    """What the row keeps is no input that this version can read. Names the step and what was found."""


def recorded_input(agent: str, originals: Sequence[Delivery], move: Move | None) -> bytes:
    """`originals` as they lay where they were first read, of a join all its parts, the last at the end.

    `move` is what a retry topic had added.
    """
    return encode_records([_kept(agent, original, 0 if move is None else move.replays) for original in originals])


def input_of(agent: str, row: Row) -> Sequence[tuple[Delivery, Move]]:
    """The records that triggered the step, each with where it came from. Raises `InputUnreadable`."""
    try:
        found = [opened(agent, _lying(kept)) for kept in decode_records(row.undo)]
    except ValueError as error:  # also what `decode_records` and `opened` raise
        raise InputUnreadable(
            f"step {row.step_id}: expected the event that it was given among what its row keeps, found {len(row.undo)} bytes ({error})"
        ) from error
    if not found:
        raise InputUnreadable(f"step {row.step_id}: expected the event that it was given among what its row keeps, found none")
    return found


def _kept(agent: str, original: Delivery, replays: int) -> Record:
    origin = Origin(original.topic, original.partition, original.offset)
    move = Move(origin, original.timestamp_ms, 1, original.timestamp_ms, replays=replays)
    return Moved(retry_topic(agent, 0).name, move).record(original)


def _lying(record: Record) -> Delivery:
    return Delivery(record.topic, 0, 0, 0, record.key, record.value, record.headers)
