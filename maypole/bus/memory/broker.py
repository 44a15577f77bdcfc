"""A broker in memory: logs, groups, and the switch that takes it away and brings it back.

It belongs to one event loop. What it does depends on its callers and on the clocks alone, so under virtual time a
program takes the same steps in every run.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextvars import Context
from dataclasses import dataclass, field

from maypole.bus.memory.faults import Faults, IncarnationDead
from maypole.bus.memory.group import Group, GroupMember
from maypole.bus.memory.log import PartitionLog
from maypole.bus.partitioning import partition_of
from maypole.bus.ports import PublishRefused, Receipt, Record, RecordTooLarge, TopicPartition

RECORD_BYTES_MAX = 1_048_588
"""Key, value and headers together; the usual limit of clients and brokers."""


@dataclass(slots=True)
class _Topic:
    logs: list[PartitionLog]
    config: Mapping[str, str] = field(default_factory=dict)
    keyless: int = 0


class MemoryBroker:
    """`now` gives broker time in seconds since the epoch (`VirtualClock.now` under virtual time)."""

    def __init__(self, now: Callable[[], float] = time.time, faults: Faults | None = None, cluster_id: str = "memory") -> None:
        self.cluster_id = cluster_id
        self.faults = faults or Faults()
        self._now = now
        self._topics: dict[str, _Topic] = {}
        self._groups: dict[str, Group] = {}
        self._back = asyncio.Event()
        self._back.set()
        self._waiting: deque[tuple[Sequence[Record], Callable[[], None], asyncio.Future[list[Receipt]]]] = deque()
        self._watchers: dict[Callable[[], None], Collection[str] | None] = {}

    # Topics and records.

    def topics(self) -> dict[str, int]:
        return {name: len(topic.logs) for name, topic in sorted(self._topics.items())}

    def config(self, topic: str) -> Mapping[str, str]:
        return dict(self._topics[topic].config)

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str]) -> None:
        """A topic that exists stays as it is."""
        if partitions < 1:
            raise ValueError(f"topic {name} needs at least one partition, not {partitions}")
        if name not in self._topics:
            self._topics[name] = _Topic([PartitionLog(name, p) for p in range(partitions)], dict(config))
            for group in self._groups.values():
                group.rebalance()

    def add_partitions(self, name: str, partitions: int) -> None:
        """As many in all. Keys move, as in Kafka."""
        logs = self._topics[name].logs
        logs += [PartitionLog(name, p) for p in range(len(logs), partitions)]
        for group in self._groups.values():
            group.rebalance()

    def log(self, at: TopicPartition) -> PartitionLog:
        topic = self._topics.get(at.topic)
        if topic is None or not 0 <= at.partition < len(topic.logs):
            raise LookupError(f"there is no partition {at.partition} of a topic {at.topic}")
        return topic.logs[at.partition]

    async def append(self, records: Sequence[Record], check: Callable[[], None], when: float = 0.0) -> list[Receipt]:
        """Written at `when` on the loop's clock, or at once, in the order of calls; while the broker is away, when it is back.

        `check` raises when whoever asked has died while waiting: then nothing is written. What is on its way is.
        """
        loop = asyncio.get_running_loop()
        under_way = when > loop.time()
        if self._back.is_set() and not under_way:
            return self._append(records)
        receipts: asyncio.Future[list[Receipt]] = loop.create_future()
        if under_way:
            loop.call_at(when, self._arrive, records, check, receipts, context=Context())
        else:
            self._waiting.append((records, check, receipts))
        return await receipts

    def _arrive(self, records: Sequence[Record], check: Callable[[], None], receipts: asyncio.Future[list[Receipt]]) -> None:
        if not self._back.is_set():
            self._waiting.append((records, check, receipts))
            return
        try:
            written = self._append(records)
        except PublishRefused as error:
            if not receipts.done():
                receipts.set_exception(error)
        else:
            if not receipts.done():
                receipts.set_result(written)

    def trim(self, at: TopicPartition, before: int) -> None:
        """Delete records as retention does."""
        self.log(at).trim(before)

    def _append(self, records: Sequence[Record]) -> list[Receipt]:
        loop_now = asyncio.get_running_loop().time()
        timestamp_ms = int(self._now() * 1000)
        receipts = []
        refused: PublishRefused | None = None
        for record in records:
            refusal = self._refusal(record)
            if refusal is not None:
                refused = refused or refusal
                continue
            topic = self._topics[record.topic]
            partition = self._place(topic, record)
            log = topic.logs[partition]
            arrival = loop_now + self.faults.arrive_after(record)
            offset = log.append(record, timestamp_ms, arrival)
            if self.faults.append_twice(record):
                offset = log.append(record, timestamp_ms, arrival)
            receipts.append(Receipt(partition, offset))
        self._tell_watchers({record.topic for record in records})
        if refused is not None:
            raise refused
        return receipts

    def _refusal(self, record: Record) -> PublishRefused | None:
        if record.topic not in self._topics:
            return PublishRefused(record.topic, "unknown topic")
        size = len(record.key or b"") + len(record.value or b"") + sum(len(n) + len(v or b"") for n, v in record.headers)
        allowed = int(self.config(record.topic).get("max.message.bytes", RECORD_BYTES_MAX))
        if size > allowed:
            return RecordTooLarge(record, f"{size} bytes, and {allowed} are allowed")
        reason = self.faults.refuse(record)
        return None if reason is None else PublishRefused(record.topic, reason)

    def _place(self, topic: _Topic, record: Record) -> int:
        if record.key is not None:
            return partition_of(record.key, len(topic.logs))
        topic.keyless += 1
        return topic.keyless % len(topic.logs)

    # Groups.

    def group(self, name: str) -> Group:
        if name not in self._groups:
            self._groups[name] = Group(lambda topic: len(self._topics[topic].logs) if topic in self._topics else 0)
        return self._groups[name]

    def members(self, group: str) -> tuple[GroupMember, ...]:
        """In the order in which they joined; `MemoryMember.expel` makes one lose its partitions."""
        return tuple(self.group(group).members)

    # Away and back.

    @property
    def is_away(self) -> bool:
        return not self._back.is_set()

    def go_away(self) -> None:
        """Nothing is written, read or committed until `come_back`; questions are answered by `BrokerUnreachable`."""
        self._back.clear()

    def come_back(self) -> None:
        self._back.set()
        while self._waiting:
            records, check, receipts = self._waiting.popleft()
            if receipts.done():
                continue
            try:
                check()
                receipts.set_result(self._append(records))
            except (PublishRefused, IncarnationDead) as error:
                receipts.set_exception(error)
        self._tell_watchers()

    async def present(self) -> None:
        """Wait until the broker is there."""
        await self._back.wait()

    def watch(self, call: Callable[[], None], topics: Collection[str] | None = None) -> None:
        """Have it called when there may be more to read on these topics; None: on any."""
        self._watchers[call] = topics

    def unwatch(self, call: Callable[[], None]) -> None:
        self._watchers.pop(call, None)

    def _tell_watchers(self, written: AbstractSet[str] | None = None) -> None:
        """In the order in which they began to watch. `written`: the topics that have more, None: all."""
        for call, topics in list(self._watchers.items()):
            if written is None or topics is None or not written.isdisjoint(topics):
                call()
