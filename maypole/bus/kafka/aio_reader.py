"""`Reader` over an aiokafka consumer that belongs to no group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import aiokafka

from maypole.bus.kafka.aio_errors import FORBIDDEN, stop_within
from maypole.bus.kafka.aio_settings import AioSettings
from maypole.bus.ports import Delivery, TopicPartition

_BATCH_MAX = 1000
_STOP_SECONDS = 2.0


class AioReader:
    def __init__(self, settings: AioSettings, start: Mapping[TopicPartition, int]) -> None:
        self._start = start
        self._consumer: Any = aiokafka.AIOKafkaConsumer(**settings.reader())

    async def open(self) -> None:
        await self._consumer.start()
        self._consumer.assign([aiokafka.TopicPartition(*p) for p in self._start])
        for partition, offset in self._start.items():
            self._consumer.seek(aiokafka.TopicPartition(*partition), offset)

    async def read(self, wait_seconds: float) -> Sequence[Delivery]:
        try:
            found = await self._consumer.getmany(timeout_ms=int(wait_seconds * 1000), max_records=_BATCH_MAX)
        except FORBIDDEN as error:
            raise PermissionError(f"the broker does not let us read {sorted({p.topic for p in self._start})}: {error}") from error
        return [
            Delivery(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers) for records in found.values() for r in records
        ]

    async def close(self) -> None:
        await stop_within(self._consumer.stop(), _STOP_SECONDS, "reader")
