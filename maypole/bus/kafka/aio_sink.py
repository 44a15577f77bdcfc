"""`Sink` over aiokafka's idempotent producer, which does not survive a long outage: then it is replaced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import aiokafka
from aiokafka import errors

from maypole.bus.kafka.aio_errors import REFUSED, TOO_LARGE, stop_within
from maypole.bus.kafka.aio_settings import AioSettings
from maypole.bus.kafka.batch_limit import BatchLimit
from maypole.bus.ports import BrokerUnreachable, PublishRefused, Receipt, Record, RecordTooLarge

_log = logging.getLogger("maypole.bus.kafka")

_RETRY_SECONDS = 0.2
_STOP_SECONDS = 2.0


class _Call:
    """One `publish`: its records, those still to be sent, and the answers."""

    def __init__(self, records: Sequence[Record], limit: BatchLimit) -> None:
        self.records = records
        self._limit = limit
        self._sent_bytes_max = limit.bytes_max
        self.todo = list(range(len(records)))
        self.receipts = [Receipt(-1, -1)] * len(records)
        self.refusals: dict[int, BaseException] = {}
        self.failure: BaseException | None = None
        self.flying: dict[int, asyncio.Future[Any]] = {}

    async def answered(self) -> None:
        """Wait for the answers to what flies, and sort them; may be awaited by several."""
        flying = self.flying
        if flying:
            await asyncio.wait(flying.values())
        if self.flying is flying:
            self.flying = {}
            failed = [index for index, answer in flying.items() if not self._settle(index, answer)]
            self.todo = sorted([*failed, *self.todo])

    def _settle(self, index: int, answer: asyncio.Future[Any]) -> bool:
        error = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        if error is None:
            metadata = answer.result()
            self.receipts[index] = Receipt(metadata.partition, max(-1, metadata.offset))
        elif isinstance(error, REFUSED) and not self._fits_alone(index, error):
            self.refusals[index] = error
        else:
            self.failure = error
            return False
        return True

    def _fits_alone(self, index: int, error: BaseException) -> bool:
        """It may: then it is worth another try, in a smaller batch."""
        return isinstance(error, TOO_LARGE) and self._limit.is_to_blame(self.records[index], self._sent_bytes_max)

    def begin_round(self, batch_bytes_max: int) -> list[int]:
        """The indices to hand over now, in order, to a producer whose batches are so large at the most."""
        self._sent_bytes_max = batch_bytes_max
        todo, self.todo = self.todo, []
        return todo


class AioSink:
    """`topics` asks the cluster for its topics: aiokafka would have the broker make one that is not there."""

    def __init__(self, settings: AioSettings, topics: Callable[[], Awaitable[Collection[str]]]) -> None:
        self._settings = settings
        self._ask_topics = topics
        self._known: set[str] = set()
        self._turn = asyncio.Lock()
        self._open: dict[_Call, None] = {}
        self._ailing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._limit = BatchLimit(settings.batch_bytes_max)
        self._batch_bytes_max = self._limit.bytes_max
        self._producer: Any = None

    async def open(self) -> None:
        self._batch_bytes_max = self._limit.bytes_max
        producer: Any = aiokafka.AIOKafkaProducer(**self._settings.producer(self._batch_bytes_max))
        try:
            await producer.start()
        except BaseException:
            await stop_within(producer.stop(), _STOP_SECONDS, "producer")
            raise
        self._producer = producer

    async def publish(self, records: Sequence[Record]) -> Sequence[Receipt]:
        if not records:
            return ()
        call = _Call(records, self._limit)
        self._open[call] = None
        self._idle.clear()
        try:
            async with self._turn:
                if self._ailing:
                    await self._recover()
                if call.todo:
                    await self._hand_over(call)
            while True:
                await call.answered()
                if not call.todo:
                    break
                self._ailing = True
                async with self._turn:
                    if call.todo:
                        await self._recover()
        finally:
            self._open.pop(call, None)
            if not self._open:
                self._idle.set()
        if call.refusals:
            first = min(call.refusals)
            record, error = records[first], call.refusals[first]
            raise RecordTooLarge(record, str(error)) if isinstance(error, TOO_LARGE) else PublishRefused(record.topic, str(error))
        return call.receipts

    async def close(self) -> None:
        try:
            await self._idle.wait()
        finally:
            await stop_within(self._producer.stop(), _STOP_SECONDS, "producer")

    async def _hand_over(self, call: _Call) -> None:
        todo = call.begin_round(self._batch_bytes_max)
        call.flying = flying = {}
        send = self._producer.send
        at = 0
        try:
            while at < len(todo):
                index = todo[at]
                topic, key, value, headers = call.records[index]
                try:
                    if topic not in self._known:
                        await self._look_up(topic)
                    flying[index] = await send(topic, value, key, headers=list(headers))
                except (LookupError, *REFUSED) as error:
                    call.refusals[index] = error
                except (errors.KafkaError, BrokerUnreachable) as error:
                    # What follows would overtake this one.
                    call.failure = error
                    break
                at += 1
        finally:
            call.todo = todo[at:]

    async def _look_up(self, topic: str) -> None:
        self._known.update(await self._ask_topics())
        if topic not in self._known:
            raise LookupError("there is no such topic")

    async def _recover(self) -> None:
        """Send again, in the order of the calls, what failed though the broker would take it, with a new producer."""
        for call in list(self._open):
            await call.answered()
        failed = [call for call in self._open if call.todo]
        reason = next((call.failure for call in failed if call.failure is not None), None)
        if reason is not None:
            _log.warning("bus.producer_replaced error=%r", reason)
            await stop_within(self._producer.stop(), _STOP_SECONDS, "producer")
            await self._reopen()
        self._ailing = False
        for call in failed:
            call.failure = None
            await self._hand_over(call)

    async def _reopen(self) -> None:
        while True:
            try:
                await self.open()
            except (errors.KafkaError, OSError) as error:
                _log.debug("bus.producer_waits error=%r", error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return
