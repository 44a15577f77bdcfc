"""`Transport` on a broker in memory. Each stands for one process: `kill` ends it as `kill -9` would."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType

from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.cluster import MemoryCluster
from maypole.bus.memory.faults import IncarnationDead
from maypole.bus.memory.member import MemoryMember
from maypole.bus.memory.waiting import Wakeup
from maypole.bus.missed import Missed
from maypole.bus.ports import Assignment, Cluster, Delivery, Expired, Features, Reader, Receipt, Record, Sink, Source, TopicPartition

_log = logging.getLogger("maypole.bus.memory")

MEMORY = Features(
    name="memory",
    creates_topics=True,
    several_members=True,
    broker_time=True,
    topic_config=True,
    refuses_seed_of_active_group=True,
    reseeds_group=True,
    survives_restart=False,
)

_READ_MAX = 1000
_APART_SECONDS = 1e-6
"""Timers of one time may ring in any order."""


class MemoryTransport:
    """`expired_records` and `on_expired`: as on Kafka, what retention deleted before a group read it."""

    def __init__(self, broker: MemoryBroker, *, on_expired: Callable[[Expired], None] | None = None) -> None:
        self.features = MEMORY
        self._broker = broker
        self._missed = Missed(on_expired)
        self.expired_records: Mapping[str, int] = self._missed.records
        self._alive = True
        self._members: dict[MemoryMember, asyncio.Task[None]] = {}
        self.cluster: Cluster = MemoryCluster(broker, self._check)

    async def __aenter__(self) -> MemoryTransport:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for member, keeper in list(self._members.items()):
            member.leave()
            await asyncio.wait({keeper})

    def kill(self) -> None:
        """From now on every port of this transport raises `IncarnationDead`; what was written stays written."""
        self._alive = False
        for member, keeper in self._members.items():
            member.kill()
            keeper.cancel()

    def expel(self) -> None:
        """The groups give up on the members of this process, as on one that was silent for too long."""
        for member in self._members:
            member.expel()

    @asynccontextmanager
    async def sink(self, *, bulk: bool = False) -> AsyncIterator[Sink]:
        self._check()
        sink = _MemorySink(self._broker, self._check)
        try:
            yield sink
        finally:
            if self._alive:
                await sink.flush()

    @asynccontextmanager
    async def source(
        self, group: str, topics: Collection[str], assignment: Assignment, *, batch_max: int = 500, revoke_seconds: float = 10.0
    ) -> AsyncIterator[Source]:
        self._check()
        member = MemoryMember(
            self._broker, group, topics, assignment, batch_max=batch_max, revoke_seconds=revoke_seconds, expired=self._missed.add
        )
        keeper = asyncio.create_task(member.keep(), name=f"maypole-member-{group}")
        self._members[member] = keeper
        try:
            yield member
        finally:
            member.leave()
            await asyncio.wait({keeper})
            # Not before: a process may die while it leaves, and then its session still has to end.
            del self._members[member]

    @asynccontextmanager
    async def reader(self, start: Mapping[TopicPartition, int]) -> AsyncIterator[Reader]:
        self._check()
        reader = _MemoryReader(self._broker, self._check, start)
        try:
            yield reader
        finally:
            reader.close()

    def _check(self) -> None:
        if not self._alive:
            raise IncarnationDead("the process that holds this transport was killed")


class _MemorySink:
    def __init__(self, broker: MemoryBroker, check: Callable[[], None]) -> None:
        self._broker = broker
        self._check = check
        self._sent = 0.0
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def publish(self, records: Sequence[Record]) -> Sequence[Receipt]:
        self._check()
        if not records:
            return ()
        self._open += 1
        self._idle.clear()
        try:
            receipts = await self._broker.append(records, self._check, self._written_at(records))
            await asyncio.sleep(max(self._broker.faults.acknowledge_after(record) for record in records))
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()
        self._check()
        return receipts

    async def flush(self) -> None:
        await self._idle.wait()

    def _written_at(self, records: Sequence[Record]) -> float:
        """Not before what was sent before."""
        now = asyncio.get_running_loop().time()
        when = now + self._broker.faults.write_after(records)
        if now < self._sent and when <= self._sent:
            when = self._sent + _APART_SECONDS
        self._sent = when
        return when


class _MemoryReader:
    def __init__(self, broker: MemoryBroker, check: Callable[[], None], start: Mapping[TopicPartition, int]) -> None:
        self._broker = broker
        self._check = check
        self._positions = dict(sorted(start.items()))
        self._more = Wakeup()
        broker.watch(self._more.set, {topic for topic, _ in self._positions})

    async def read(self, wait_seconds: float) -> Sequence[Delivery]:
        self._check()
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while True:
            self._more.clear()
            batch = [] if self._broker.is_away else self._read()
            if batch:
                return batch
            # What has arrived cannot be read while the broker is away; its coming back is told.
            when = deadline if self._broker.is_away else min([deadline, *self._arrivals()])
            in_time = await self._more.wait_until(when)
            self._check()
            if not in_time and when >= deadline:
                return self._read() if not self._broker.is_away else []

    def close(self) -> None:
        self._broker.unwatch(self._more.set)

    def _read(self) -> list[Delivery]:
        now = asyncio.get_running_loop().time()
        batch: list[Delivery] = []
        for partition, position in self._positions.items():
            log = self._broker.log(partition)
            start = position if log.oldest <= position <= log.end else log.oldest
            records = log.read(start, _READ_MAX - len(batch), now)
            self._positions[partition] = records[-1].offset + 1 if records else start
            batch += records
        return batch

    def _arrivals(self) -> list[float]:
        arrivals = [self._broker.log(partition).next_arrival(position) for partition, position in self._positions.items()]
        return [arrival for arrival in arrivals if arrival is not None]
