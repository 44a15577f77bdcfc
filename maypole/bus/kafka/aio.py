"""The second transport: aiokafka, asyncio through and through, at least once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Protocol

from maypole.bus.kafka.aio_cluster import AioCluster
from maypole.bus.kafka.aio_errors import reaching
from maypole.bus.kafka.aio_reader import AioReader
from maypole.bus.kafka.aio_settings import AioSettings
from maypole.bus.kafka.aio_sink import AioSink
from maypole.bus.kafka.aio_source import AioSource
from maypole.bus.kafka.embedded import is_embedded
from maypole.bus.missed import Missed
from maypole.bus.ports import Assignment, Cluster, Expired, Features, Reader, Sink, Source, TopicPartition, Transport

_log = logging.getLogger("maypole.bus.kafka")

REAL = Features(
    name="aiokafka",
    creates_topics=True,
    several_members=True,
    broker_time=True,
    topic_config=True,
    refuses_seed_of_active_group=True,
    reseeds_group=True,
    survives_restart=True,
)
EMBEDDED = Features(
    name="aiokafka, embedded broker",
    creates_topics=False,
    several_members=False,
    broker_time=False,
    topic_config=False,
    refuses_seed_of_active_group=True,
    reseeds_group=False,
    survives_restart=False,
)


class _Resource(Protocol):
    async def open(self) -> None: ...

    async def close(self) -> None: ...


class AioTransport:
    """`config`: librdkafka properties, translated; `ValueError` names one that aiokafka has no word for.

    `unreachable_seconds` bounds opening and the calls of `cluster`. `expired_records` counts, and `on_expired` is told,
    what retention deleted before a group of this transport read it.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        config: Mapping[str, str] | None = None,
        linger_ms: float = 0.0,
        unreachable_seconds: float = 5.0,
        on_expired: Callable[[Expired], None] | None = None,
    ) -> None:
        self._settings = AioSettings(bootstrap, config or {}, linger_ms)
        self._unreachable_seconds = unreachable_seconds
        self._missed = Missed(on_expired)
        self.expired_records: Mapping[str, int] = self._missed.records
        self._open: list[_Resource] = []
        self.features = REAL

    async def __aenter__(self) -> AioTransport:
        cluster = AioCluster(self._settings, self._unreachable_seconds)
        await cluster.open()
        self._cluster = cluster
        self.cluster: Cluster = cluster
        if is_embedded(await cluster.cluster_id()):
            self.features = EMBEDDED
            self._settings.embedded = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._open:
            await self._open.pop().close()
        await self._cluster.close()

    @asynccontextmanager
    async def sink(self, *, bulk: bool = False) -> AsyncIterator[Sink]:
        async def topics() -> Collection[str]:
            return (await self.cluster.topics()).keys()

        sink = AioSink(self._settings, topics)
        async with self._opened(sink):
            yield sink

    @asynccontextmanager
    async def source(
        self, group: str, topics: Collection[str], assignment: Assignment, *, batch_max: int = 500, revoke_seconds: float = 10.0
    ) -> AsyncIterator[Source]:
        source = AioSource(
            self._settings,
            group,
            topics,
            assignment,
            batch_max=batch_max,
            revoke_seconds=revoke_seconds,
            expired=self._missed.add,
        )
        async with self._opened(source):
            yield source

    @asynccontextmanager
    async def reader(self, start: Mapping[TopicPartition, int]) -> AsyncIterator[Reader]:
        reader = AioReader(self._settings, start)
        async with self._opened(reader):
            yield reader

    @asynccontextmanager
    async def _opened(self, resource: _Resource) -> AsyncIterator[None]:
        async with reaching(self._settings.bootstrap, self._unreachable_seconds):
            await resource.open()
        self._open.append(resource)
        try:
            yield
        finally:
            if resource in self._open:
                self._open.remove(resource)
                await resource.close()


@asynccontextmanager
async def open_aiokafka(bootstrap: str, *, config: Mapping[str, str] | None = None) -> AsyncIterator[Transport]:
    """A transport with everything at its default. Raises `BrokerUnreachable`, and `ValueError` for a wrong property."""
    async with AioTransport(bootstrap, config=config) as transport:
        yield transport
