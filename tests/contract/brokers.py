"""The brokers and clients that the one suite runs on, each with what it declares to support."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from uuid import uuid4

from confluent_kafka import TopicPartition as Native
from confluent_kafka.admin import AdminClient

from maypole.bus.kafka import aio, confluent
from maypole.bus.kafka.aio import AioTransport
from maypole.bus.kafka.confluent import ConfluentTransport
from maypole.bus.kafka.embedded import EmbeddedKafka
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MEMORY, MemoryTransport
from maypole.bus.ports import Expired, Features, TopicPartition, TopicSpec, Transport


class Kind(Enum):
    MEMORY = "memory"
    CONFLUENT_EMBEDDED = "confluent-embedded"
    AIOKAFKA_EMBEDDED = "aiokafka-embedded"
    CONFLUENT_KAFKA = "confluent-kafka"
    AIOKAFKA_KAFKA = "aiokafka-kafka"
    CLASSIC_KAFKA = "confluent-classic-kafka"
    """Differs in its group protocol, so only where members come and go: everything else would be the same again."""

    def __str__(self) -> str:
        return self.value

    @property
    def features(self) -> Features:
        return {
            Kind.MEMORY: MEMORY,
            Kind.CONFLUENT_EMBEDDED: confluent.EMBEDDED,
            Kind.AIOKAFKA_EMBEDDED: aio.EMBEDDED,
            Kind.CONFLUENT_KAFKA: confluent.REAL,
            Kind.AIOKAFKA_KAFKA: aio.REAL,
            Kind.CLASSIC_KAFKA: confluent.REAL,
        }[self]

    @property
    def client(self) -> str:
        return self.value.partition("-")[0]

    @property
    def embedded(self) -> bool:
        return self.value.endswith("embedded")

    @property
    def real(self) -> bool:
        return self.value.endswith("kafka") and not self.embedded


KINDS: Final = tuple(kind for kind in Kind if kind is not Kind.CLASSIC_KAFKA)


def those(supported: Callable[[Features], bool]) -> list[Kind]:
    return [kind for kind in KINDS if supported(kind.features)]


_numbers = itertools.count(1)


@dataclass(slots=True)
class Broker:
    """A broker that runs. Each `connect` stands for another process."""

    kind: Kind
    bootstrap: str = ""
    memory: MemoryBroker | None = None
    embedded: EmbeddedKafka | None = None
    expired: list[Expired] = field(default_factory=list)

    @asynccontextmanager
    async def connect(self, config: Mapping[str, str] | None = None) -> AsyncIterator[Transport]:
        if self.kind is Kind.CLASSIC_KAFKA:
            config = {"group.protocol": "classic", **(config or {})}
        if self.kind.client == "confluent":
            async with ConfluentTransport(self.bootstrap, config=config, on_expired=self.expired.append) as transport:
                yield transport
        elif self.kind.client == "aiokafka":
            async with AioTransport(self.bootstrap, config=config, on_expired=self.expired.append) as other:
                yield other
        else:
            assert self.memory is not None
            async with MemoryTransport(self.memory, on_expired=self.expired.append) as third:
                yield third

    async def topic(self, transport: Transport, partitions: int = 3, config: Mapping[str, str] | None = None) -> str:
        name = unique("topic")
        await transport.cluster.create([TopicSpec(name, partitions, config or {})])
        return name

    def trim(self, at: TopicPartition, before: int) -> None:
        """Delete old records, as retention would."""
        if self.memory is not None:
            self.memory.trim(at, before)
        elif self.embedded is not None:
            self.embedded.trim(at.topic, at.partition, before)
        else:
            admin = AdminClient({"bootstrap.servers": self.bootstrap})
            for future in admin.delete_records([Native(at.topic, at.partition, before)]).values():
                future.result(10)


def unique(what: str) -> str:
    return f"contract.{what}.{next(_numbers)}.{uuid4().hex[:6]}"
