"""Where the concrete classes meet: which transport, registry and observer a process uses. Nothing else knows them."""

from __future__ import annotations

import logging
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Final
from uuid import uuid4

from maypole.bus.agent import Agent
from maypole.bus.backoff import Backoff, jittered
from maypole.bus.bus import Bus
from maypole.bus.catalog import READ_SECONDS, Catalog, open_catalog
from maypole.bus.contracts import Contracts
from maypole.bus.flow_starts import FlowStarts, open_flow_starts
from maypole.bus.hook import Tracing, Untraced
from maypole.bus.instance import instance_id
from maypole.bus.ledger.port import Ledger
from maypole.bus.ports import BrokerUnreachable, Cluster, Sink, TopicSpec, Transport
from maypole.bus.runner import DRAIN_SECONDS_DEFAULT, AgentRunner, OpenLedger, Surroundings
from maypole.bus.starting_offsets import StartFrom
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Reader
from maypole.schemas.journal import FlowStarted
from maypole.schemas.registry import Registry
from maypole.schemas.topics import PARTITIONS_DEFAULT, PLATFORM, Topic
from maypole.settings import Settings, read_settings

log = logging.getLogger("maypole.bus.composition")

OpenTracing = Callable[[Settings, str, str], AbstractContextManager[Tracing]]
"""(settings, service name, service version) to an observer that is flushed on leaving."""

TRACING_PLUGINS: Final = "maypole.tracing"


@dataclass(frozen=True, slots=True)
class Platform:
    """One connection to one cluster, shared by everything in the process."""

    settings: Settings
    transport: Transport
    sink: Sink
    catalog: Catalog
    contracts: Contracts
    starts: FlowStarts
    home: Path
    now: Callable[[], float] = time.time
    backoff: Backoff = field(default_factory=lambda: jittered(random.Random()))
    ledgers: OpenLedger | None = None
    """None: where the settings say."""
    instance: str = field(default_factory=instance_id)

    def bus(self, publisher: str, tracing: Tracing) -> Bus:
        return Bus(publisher, self.sink, self.catalog, self.contracts, self.starts, tracing, self.now, self.ensure)

    def runner(
        self,
        agent: Agent,
        tracing: Tracing,
        *,
        start: StartFrom = "latest",
        temporary: bool = False,
        drain_seconds: float = DRAIN_SECONDS_DEFAULT,
    ) -> AgentRunner:
        alone = self.ledgers is None and self.settings.store == "sqlite"
        ledger_of_one = f"{socket.gethostname()}:{self.home}" if alone else None
        around = Surroundings(
            self.transport, self.sink, self.catalog, self.contracts, self.starts, tracing, self.home, self.now, self.backoff, self.ensure,
            self.ledgers or partial(_ledger_of, self.settings, self.home, self.now), ledger_of_one, self.instance,
        )  # fmt: skip
        return AgentRunner(agent, around, start=start, temporary=temporary, drain_seconds=drain_seconds)

    async def ensure(self, topics: Collection[Topic]) -> None:
        await ensure_topics(self.transport.cluster, topics)


async def ensure_topics(cluster: Cluster, topics: Iterable[Topic]) -> None:
    """Create what is missing. Raises `TopicsForbidden` naming what the broker did not let us create."""
    there = await cluster.topics()
    wanted = {topic.name: topic.partitioned(PARTITIONS_DEFAULT) for topic in topics if topic.name not in there}
    if wanted:
        await cluster.create([TopicSpec(topic.name, topic.partitions or PARTITIONS_DEFAULT, topic.config) for topic in wanted.values()])
        log.info("topics.created", extra={"topics": sorted(wanted)})


@asynccontextmanager
async def open_transport(settings: Settings) -> AsyncIterator[Transport]:
    """Raises `BrokerUnreachable` when no broker is known."""
    if settings.kafka is None:
        raise BrokerUnreachable(
            "expected a Kafka broker, found none: MAYPOLE_KAFKA is not set and there is no endpoints.json in "
            f"{settings.home}. Start one with `maypole dev` (embedded) or `make local`, or set MAYPOLE_KAFKA=host:port"
        )
    if settings.transport == "aiokafka":
        from maypole.bus.kafka.aio import open_aiokafka

        async with open_aiokafka(settings.kafka, config=settings.kafka_config) as transport:
            yield transport
    else:
        from maypole.bus.kafka.confluent import ConfluentTransport

        async with ConfluentTransport(settings.kafka, config=settings.kafka_config) as transport:
            yield transport


@asynccontextmanager
async def open_platform(
    settings: Settings,
    transport: Transport | None = None,
    now: Callable[[], float] = time.time,
    ledgers: OpenLedger | None = None,
    *,
    catalog_read_seconds: float = READ_SECONDS,
) -> AsyncIterator[Platform]:
    """Connect, make sure of the platform's topics, read the catalog. Leaving flushes and disconnects.

    `catalog_read_seconds`: how long a read of the catalog waits for news, where nothing is ever compacted as long as one likes.
    """
    async with AsyncExitStack() as stack:
        if transport is None:
            transport = await stack.enter_async_context(open_transport(settings))
        cluster_id = await transport.cluster.cluster_id()
        await ensure_topics(transport.cluster, PLATFORM)
        sink = await stack.enter_async_context(transport.sink())
        catalog = await stack.enter_async_context(open_catalog(transport, sink, catalog_read_seconds))
        registry = await stack.enter_async_context(_open_registry(settings))
        contracts = Contracts(catalog, registry)
        reader = Reader(schema_of(FlowStarted), FlowStarted)
        starts = await stack.enter_async_context(open_flow_starts(transport, reader.decode))
        home = settings.cluster_home(cluster_id)
        yield Platform(settings, transport, sink, catalog, contracts, starts, home, now, ledgers=ledgers)


def _ledger_of(settings: Settings, home: Path, now: Callable[[], float], agent: str, instance: str) -> AbstractAsyncContextManager[Ledger]:
    from maypole.bus.stores.opening import open_ledger

    # A process's number comes back; who held a lease must not.
    start = f"{instance}-{uuid4().hex[:8]}"
    return open_ledger(settings.store, home / "agents" / agent, agent, start, lambda: int(now() * 1000))


@asynccontextmanager
async def _open_registry(settings: Settings) -> AsyncIterator[Registry | None]:
    if settings.registry_url is None:
        yield None
        return
    from maypole.schemas.confluent import ConfluentRegistry

    async with ConfluentRegistry(settings.registry_url) as registry:
        yield registry


@asynccontextmanager
async def open_bus(settings: Settings | None, publisher: str) -> AsyncIterator[Bus]:
    chosen = read_settings(os.environ, Path.cwd()) if settings is None else settings
    async with open_platform(chosen) as platform:
        with open_tracing(chosen, publisher, version("maypole")) as tracing:
            yield platform.bus(publisher, tracing)


def open_tracing(settings: Settings, service: str, version: str) -> AbstractContextManager[Tracing]:
    """The observer that is installed, found as a plugin because the bus knows its hook only; none: `Untraced`."""
    if settings.tracing != "off":
        for plugin in entry_points(group=TRACING_PLUGINS):
            opener: OpenTracing = plugin.load()
            return opener(settings, service, version)
    return nullcontext(Untraced())
