"""The default transport: confluent-kafka's synchronous clients behind a bridge of our own.

Its own asyncio clients lose a record when a poll is cancelled and refuse headers, so they are not used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Protocol

from maypole.bus.kafka.confluent_cluster import ConfluentCluster
from maypole.bus.kafka.confluent_member import Member
from maypole.bus.kafka.confluent_reader import ConfluentReader
from maypole.bus.kafka.confluent_settings import ConfluentSettings, GroupProtocol
from maypole.bus.kafka.confluent_sink import ConfluentSink
from maypole.bus.kafka.confluent_source import ConfluentSource
from maypole.bus.kafka.confluent_topics import TopicWatch
from maypole.bus.kafka.embedded import is_embedded
from maypole.bus.missed import Missed
from maypole.bus.ports import Assignment, Cluster, Expired, Features, Reader, Sink, Source, TopicPartition, Transport

_log = logging.getLogger("maypole.bus.kafka")

REAL = Features(
    name="confluent",
    creates_topics=True,
    several_members=True,
    broker_time=True,
    topic_config=True,
    refuses_seed_of_active_group=True,
    reseeds_group=True,
    survives_restart=True,
)
EMBEDDED = Features(
    name="confluent, embedded broker",
    creates_topics=False,
    several_members=True,
    broker_time=False,
    topic_config=False,
    refuses_seed_of_active_group=True,
    reseeds_group=True,
    survives_restart=False,
)


@asynccontextmanager
async def open_confluent(bootstrap: str, *, config: Mapping[str, str] | None = None) -> AsyncIterator[Transport]:
    """A transport with everything at its default. Raises `BrokerUnreachable`, and `ValueError` for a wrong property."""
    async with ConfluentTransport(bootstrap, config=config) as transport:
        yield transport


class _Closable(Protocol):
    async def close(self) -> None: ...


class ConfluentTransport:
    """`config`: librdkafka properties for every client. `unreachable_seconds` bounds the calls of `cluster` and opening.

    Opening asks the broker who it is, so a wrong address is `BrokerUnreachable` here and not later. `expired_records`
    counts, and `on_expired` is told (on the loop), what retention deleted before a group of this transport read it.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        config: Mapping[str, str] | None = None,
        linger_ms: float = 0.0,
        group_protocol: GroupProtocol = GroupProtocol.AUTO,
        unreachable_seconds: float = 5.0,
        on_expired: Callable[[Expired], None] | None = None,
    ) -> None:
        self._settings = ConfluentSettings(bootstrap, config or {}, linger_ms, group_protocol)
        self._open: list[_Closable] = []
        self._missed = Missed(on_expired)
        self.expired_records: Mapping[str, int] = self._missed.records
        self._unreachable_seconds = unreachable_seconds
        self.features = REAL
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ConfluentTransport:
        self._cluster = ConfluentCluster(self._settings, self._unreachable_seconds)
        self._watch = TopicWatch(self._cluster.topic_ids)
        self.cluster: Cluster = self._cluster
        if is_embedded(await self.cluster.cluster_id()):
            self.features = EMBEDDED
            self._settings.embedded = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for resource in reversed(self._open):
            await resource.close()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        self._cluster.close()

    @asynccontextmanager
    async def sink(self, *, bulk: bool = False) -> AsyncIterator[Sink]:
        sink = ConfluentSink(self._settings, bulk=bulk)
        async with self._closing(sink):
            yield sink

    @asynccontextmanager
    async def source(
        self, group: str, topics: Collection[str], assignment: Assignment, *, batch_max: int = 500, revoke_seconds: float = 10.0
    ) -> AsyncIterator[Source]:
        if self._settings.protocol is GroupProtocol.AUTO:
            self._settings.protocol = await self._cluster.group_protocol()
        if not self._settings.embedded:  # that one deletes no topics
            await self._watch.learn(topics)
            self._watching = self._watching or asyncio.create_task(self._watch.run(), name="topics")
        member = Member(
            self._settings,
            group,
            topics,
            assignment,
            batch_max=batch_max,
            revoke_seconds=revoke_seconds,
            expired=self._missed.add,
        )
        source = ConfluentSource(group, member, revoke_seconds)
        with self._watch.telling(frozenset(topics), member.begin_anew):
            async with self._closing(source):
                yield source

    @asynccontextmanager
    async def reader(self, start: Mapping[TopicPartition, int]) -> AsyncIterator[Reader]:
        reader = ConfluentReader(self._settings, start)
        async with self._closing(reader):
            yield reader

    @asynccontextmanager
    async def _closing(self, resource: _Closable) -> AsyncIterator[None]:
        self._open.append(resource)
        try:
            yield
        finally:
            if resource in self._open:
                self._open.remove(resource)
                await resource.close()
