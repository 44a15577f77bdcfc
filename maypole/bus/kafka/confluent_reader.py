"""`Reader` over a librdkafka consumer that belongs to no group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import confluent_kafka as ck
from confluent_kafka import KafkaException

from maypole.bus.kafka.confluent_errors import FORBIDDEN
from maypole.bus.kafka.confluent_settings import ConfluentSettings, client_log
from maypole.bus.kafka.convert import deliveries
from maypole.bus.ports import Delivery, TopicPartition

_SLICE = 0.05
_BATCH_MAX = 1000


class ConfluentReader:
    """One call runs at a time, on a thread of its own; what a cancelled `read` began, the next one finishes."""

    def __init__(self, settings: ConfluentSettings, start: Mapping[TopicPartition, int]) -> None:
        self._consumer = settings.open(ck.Consumer, settings.reader())
        self._consumer.assign([ck.TopicPartition(p.topic, p.partition, offset) for p, offset in start.items()])
        self._thread = ThreadPoolExecutor(1, "maypole-reader")
        self._call: asyncio.Future[list[Delivery]] | None = None
        self._closing = False

    async def read(self, wait_seconds: float) -> Sequence[Delivery]:
        if self._call is None:
            loop = asyncio.get_running_loop()
            self._call = call = loop.run_in_executor(self._thread, self._read, wait_seconds)
            await asyncio.wait({call})
        else:
            call = self._call
            await asyncio.wait({call}, timeout=wait_seconds)
        if not call.done():
            return ()
        self._call = None
        return call.result()

    async def close(self) -> None:
        self._closing = True
        if self._call is not None:
            await asyncio.wait({self._call})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._consumer.close)
        self._thread.shutdown(wait=False)

    def _read(self, wait_seconds: float) -> list[Delivery]:
        deadline = time.monotonic() + wait_seconds
        while not self._closing:
            remaining = max(0.0, deadline - time.monotonic())
            first = self._consumer.poll(min(_SLICE, remaining))
            if first is not None:
                messages = [first, *self._consumer.consume(_BATCH_MAX - 1, 0)]
                batch = deliveries(messages)
                if len(batch) != len(messages):
                    _raise_fatal(messages)
                if batch:
                    return batch
            if remaining == 0:
                break
        return []


def _raise_fatal(messages: list[ck.Message]) -> None:
    for message in messages:
        error = message.error()
        if error is None:
            continue
        if error.code() in FORBIDDEN:
            raise PermissionError(f"the broker does not let us read {message.topic()}: {error.str()}")
        if error.fatal():
            raise KafkaException(error)
        client_log.warning("bus.reader_warned topic=%s code=%s error=%s", message.topic(), error.name(), error.str())
