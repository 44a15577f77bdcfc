"""A Maypole agent as `maypole run` runs it: journal, derived ids, order within flows, contracts. The variant names the agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from maypole.bus.composition import open_platform, open_tracing, open_transport
from maypole.bus.hook import Untraced
from maypole.bus.ports import Assignment, Cluster, Delivery, Features, Reader, Sink, Source, TopicPartition, Transport
from maypole.services.garbage import relax_collector
from maypole.settings import Settings
from tests.benchmarks.agents import agent
from tests.benchmarks.order import Meter, Order, end_on_sigterm, read_order


@dataclass(slots=True)
class WatchedSource:
    """Passes everything on and counts what was committed: only the commit tells that a record is done.

    Topics are read from their first offset. Nothing is counted record by record: no peer pays for that either.
    """

    source: Source
    meter: Meter
    finish: Callable[[], None]
    positions: dict[TopicPartition, int] = field(default_factory=dict)

    async def fetch(self) -> Sequence[Delivery]:
        batch = await self.source.fetch()
        self.meter.begin()
        return batch

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self.source.pause(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self.source.resume(partitions)

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        await self.source.commit(positions)
        more = sum(position - self.positions.get(at, 0) for at, position in positions.items())
        self.positions.update(positions)
        if self.meter.committed(more):
            self.finish()


@dataclass(slots=True)
class WatchedTransport:
    transport: Transport
    meter: Meter
    finish: Callable[[], None]

    @property
    def features(self) -> Features:
        return self.transport.features

    @property
    def cluster(self) -> Cluster:
        return self.transport.cluster

    @property
    def expired_records(self) -> Mapping[str, int]:
        return self.transport.expired_records

    def sink(self, *, bulk: bool = False) -> AbstractAsyncContextManager[Sink]:
        return self.transport.sink(bulk=bulk)

    @asynccontextmanager
    async def source(
        self, group: str, topics: Collection[str], assignment: Assignment, *, batch_max: int = 500, revoke_seconds: float = 10.0
    ) -> AsyncIterator[Source]:
        async with self.transport.source(group, topics, assignment, batch_max=batch_max, revoke_seconds=revoke_seconds) as source:
            yield WatchedSource(source, self.meter, self.finish)

    def reader(self, start: Mapping[TopicPartition, int]) -> AbstractAsyncContextManager[Reader]:
        return self.transport.reader(start)


async def main() -> None:
    order = read_order()
    end_on_sigterm()
    settings = settings_of(order)
    member = agent(order.variant)
    async with open_transport(settings) as transport:
        # The group is left properly: the next round sets its offsets back, which a member that only vanished would forbid.
        stopping: list[Callable[[], None]] = []
        watched: Transport = WatchedTransport(transport, Meter(order), lambda: stopping[0]()) if order.events else transport
        async with open_platform(settings, watched) as platform:
            with open_tracing(settings, member.name, member.version) as tracing:
                if order.tracing != "off" and isinstance(tracing, Untraced):
                    raise SystemExit("expected an observer under the entry point maypole.tracing, found none: this would measure nothing")
                runner = platform.runner(member, tracing, start="earliest")
                stopping.append(runner.stop)
                relax_collector()  # as `maypole run` does
                await runner.run()


def settings_of(order: Order) -> Settings:
    return Settings(home=Path(order.home), kafka=order.kafka, tracing=order.tracing, otlp_endpoint=order.otlp or None, store=order.store)


if __name__ == "__main__":
    asyncio.run(main())
