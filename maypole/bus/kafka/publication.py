"""One `publish` call on its way: what is still to be sent, what was answered, and how."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from confluent_kafka import KafkaError, Message

from maypole.bus.kafka.batch_limit import BatchLimit
from maypole.bus.kafka.confluent_errors import REFUSED, TOO_LARGE
from maypole.bus.ports import PublishRefused, Receipt, Record, RecordTooLarge

_UNKNOWN = Receipt(-1, -1)
_new = tuple.__new__


class Publication:
    """`reported` runs on the thread of delivery reports, everything else on the loop.

    The loop counts what it handed over, the thread what came back; whoever sees the two meet wakes the caller,
    so a publication of any size costs one wake-up and no lock.
    """

    def __init__(self, records: Sequence[Record], loop: asyncio.AbstractEventLoop, limit: BatchLimit) -> None:
        self.records = records
        self._limit = limit
        self._sent_bytes_max = limit.bytes_max
        self.todo = list(range(len(records)))
        self.failure: KafkaError | None = None
        self._loop = loop
        self._receipts = [_UNKNOWN] * len(records)
        self._refusals: dict[int, KafkaError] = {}
        self._failed: list[int] = []
        self._expected = -1
        self._answered = 0
        self._round: asyncio.Future[None] | None = None

    def begin_round(self, batch_bytes_max: int) -> list[int]:
        """The indices to hand over now, in order, to a producer whose batches are so large at the most."""
        self._sent_bytes_max = batch_bytes_max
        self._expected, self._answered, self.failure = -1, 0, None
        self._round = self._loop.create_future()
        todo, self.todo = self.todo, []
        return todo

    def end_round(self, left: list[int], expected: int | None = None) -> None:
        """`expected`: how many reports will come; None where only failures are reported, and somebody else completes it."""
        self.todo = left
        if expected is not None:
            self._expected = expected
            if self._answered == expected:
                self.complete()

    async def answered(self) -> None:
        """Wait until every record handed over was answered; `todo` then holds what must be sent again."""
        if self._round is not None:
            # Several may wait (the caller, and whoever recovers the producer): one's cancellation is its own.
            await asyncio.shield(self._round)

    def refuse(self, index: int, error: KafkaError) -> None:
        self._refusals[index] = error

    def postpone(self, index: int, error: KafkaError) -> None:
        self._failed.append(index)
        self.failure = error

    def outcome(self) -> Sequence[Receipt]:
        if self._refusals:
            first = min(self._refusals)
            record, error = self.records[first], self._refusals[first]
            raise RecordTooLarge(record, error.str()) if error.code() in TOO_LARGE else PublishRefused(record.topic, error.str())
        return self._receipts

    def reported(self, index: int, error: KafkaError | None, message: Message) -> None:
        if error is None:
            receipt = _new(Receipt, (message.partition(), message.offset()))
            # A deduplicated resend is acknowledged without its offset.
            self._receipts[index] = receipt if receipt.offset >= 0 else Receipt(receipt.partition, -1)
        elif error.code() in REFUSED and not self._fits_alone(index, error):
            self.refuse(index, error)
        else:
            self.postpone(index, error)
        self._answered += 1
        if self._answered == self._expected:
            try:
                self._loop.call_soon_threadsafe(self.complete)
            except RuntimeError:
                # The loop is closed: nobody waits any more.
                return

    def _fits_alone(self, index: int, error: KafkaError) -> bool:
        """It may: then it is worth another try, in a smaller batch."""
        return error.code() in TOO_LARGE and self._limit.is_to_blame(self.records[index], self._sent_bytes_max)

    def complete(self) -> None:
        """Every record handed over in this round was answered. May be told twice."""
        if self._round is not None and not self._round.done():
            self.todo = sorted([*self._failed, *self.todo])
            self._failed = []
            self._round.set_result(None)
