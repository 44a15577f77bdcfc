"""`Sink` over librdkafka's idempotent producer."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from functools import partial

from confluent_kafka import KafkaException

from maypole.bus.kafka.batch_limit import BatchLimit
from maypole.bus.kafka.confluent_drain import Drain
from maypole.bus.kafka.confluent_errors import REFUSED, error_of
from maypole.bus.kafka.confluent_reporter import Reporter
from maypole.bus.kafka.confluent_settings import ConfluentSettings
from maypole.bus.kafka.publication import Publication
from maypole.bus.ports import Receipt, Record

_log = logging.getLogger("maypole.bus.kafka")

_BY_KEY = -1
"""No partition of our choice."""
_NOW = 0
"""No timestamp of our choice."""
_RECOVERY_SECONDS = 0.2
_CLOSE_SECONDS = 3.0
_END_SECONDS = 1.0
"""For a producer that has nothing left to notice that it may end, on a machine that has much to do."""


class ConfluentSink:
    """Calls hand their records over one after the other and wait side by side.

    `bulk`: they wait one after the other, too, so that a producer that has nothing left has answered all of a call.
    """

    def __init__(self, settings: ConfluentSettings, *, bulk: bool = False) -> None:
        self._settings = settings
        self._bulk = bulk
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._open: dict[Publication, None] = {}
        self._given_up: set[str] = set()
        """Topics of records whose publishers were cancelled before the broker had answered."""
        self._given_up_at = -math.inf
        """When the last of these was, in seconds of the loop."""
        self._ailing = False
        self._limit = BatchLimit(settings.batch_bytes_max)
        self._reporter = self._open_reporter()

    def _open_reporter(self) -> Reporter | Drain:
        return (Drain if self._bulk else Reporter)(self._settings, self._limit.bytes_max)

    async def publish(self, records: Sequence[Record]) -> Sequence[Receipt]:
        if not records:
            return ()
        publication = Publication(records, self._loop, self._limit)
        self._open[publication] = None
        try:
            async with self._turn:
                if self._ailing:
                    await self._recover()
                if publication.todo:
                    await self._hand_over(publication)
                if self._bulk:
                    await publication.answered()
            while True:
                await publication.answered()
                if not publication.todo:
                    return publication.outcome()
                self._ailing = True
                async with self._turn:
                    if publication.todo:
                        await self._recover()
        except asyncio.CancelledError:
            self._given_up.update(record.topic for record in records)
            self._given_up_at = self._loop.time()
            raise
        finally:
            self._open.pop(publication, None)

    async def close(self) -> None:
        """Wait until everything handed over is answered; cancelled, give up what is not.

        What is left when nobody waits for it any more gets some seconds: its broker may never come back.
        """
        self._reporter.stop()
        try:
            while self._open and not self._reporter.ended.done():
                await asyncio.wait({self._reporter.ended}, timeout=_CLOSE_SECONDS)
            # Counted from when it was given up: the sinks of an agent are closed one after the other, and have that in common.
            await self._ends_within(max(_END_SECONDS, self._given_up_at + _CLOSE_SECONDS - self._loop.time()))
        finally:
            if not self._reporter.ended.done():
                self._reporter.abandon()
        if left := len(self._reporter.producer):
            _log.warning(
                "bus.records_abandoned",
                extra={
                    "records": left, "topics": sorted(self._given_up), "seconds": _CLOSE_SECONDS,
                    "why": "the broker did not take them, and nobody waits for them any more; what was not committed is done again",
                },
            )  # fmt: skip
        await self._ends_within(_CLOSE_SECONDS)
        if not self._reporter.ended.done():
            _log.warning("bus.producer_hangs", extra={"seconds": _CLOSE_SECONDS, "then": "it ends with the process"})

    async def _ends_within(self, seconds: float) -> None:
        await asyncio.wait({self._reporter.ended}, timeout=seconds)

    async def _hand_over(self, publication: Publication) -> None:
        produce = self._reporter.producer.produce
        records, reported = publication.records, publication.reported
        todo = publication.begin_round(self._reporter.batch_bytes_max)
        at = handed = 0
        try:
            while at < len(todo):
                index = todo[at]
                topic, key, value, headers = records[index]
                try:
                    # By position, in the order of the client's own signature: with names it takes a sixth longer, twice for each step.
                    wanted = headers if type(headers) is list else list(headers)
                    produce(topic, value, key, _BY_KEY, partial(reported, index), None, _NOW, wanted)
                    handed += 1
                except BufferError:
                    await self._reporter.room()
                    continue
                except KafkaException as exception:
                    error = error_of(exception)
                    if error.code() in REFUSED:
                        publication.refuse(index, error)
                    else:
                        publication.postpone(index, error)
                at += 1
        finally:
            self._reporter.handed_over(publication, handed, todo[at:])

    async def _recover(self) -> None:
        """Send again, in the order of the calls, what failed though the broker would take it.

        A fatal error is the end of an idempotent producer, so it is replaced. New calls wait for their turn meanwhile.
        """
        for publication in list(self._open):
            await publication.answered()
        failed = [p for p in self._open if p.todo]
        reason = next((p.failure for p in failed if p.failure is not None), None)
        if reason is not None:
            _log.warning("bus.producer_replaced code=%s error=%s", reason.name(), reason.str())
            await asyncio.sleep(_RECOVERY_SECONDS)
            self._reporter.stop()
        if self._reporter.stopping:
            # Also when whoever stopped it was cancelled before it had ended: it would report nothing any more.
            await asyncio.shield(self._reporter.ended)
            self._reporter = self._open_reporter()
        self._ailing = False
        for publication in failed:
            await self._hand_over(publication)
