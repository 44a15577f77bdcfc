"""The owner of a source, as the tests play it: it remembers what it was told and what it has seen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from maypole.bus.ports import Delivery, Record, Sink, Source, TopicPartition


class Owner:
    """An `Assignment` that hands over how far it got."""

    def __init__(self) -> None:
        self.held: set[TopicPartition] = set()
        self.told: list[tuple[str, frozenset[TopicPartition]]] = []
        self.seen: list[Delivery] = []
        self.positions: dict[TopicPartition, int] = {}
        self.starts: dict[TopicPartition, int] = {}
        """Where to begin, instead of at the committed offset."""
        self.on_assigned: Callable[[], Awaitable[None]] | None = None
        self.on_revoked: Callable[[], Awaitable[None]] | None = None
        self._changed = asyncio.Condition()

    async def assigned(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        if self.on_assigned is not None:
            await self.on_assigned()
        self.held |= set(partitions)
        await self._tell("assigned", partitions)
        return {p: self.starts[p] for p in partitions if p in self.starts}

    async def revoked(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        if self.on_revoked is not None:
            await self.on_revoked()
        self.held -= set(partitions)
        progress = {p: self.positions.pop(p) for p in partitions if p in self.positions}
        await self._tell("revoked", partitions)
        return progress

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        self.held -= set(partitions)
        for partition in partitions:
            self.positions.pop(partition, None)
        self.told.append(("lost", frozenset(partitions)))

    def events(self, what: str) -> list[frozenset[TopicPartition]]:
        return [partitions for name, partitions in self.told if name == what]

    async def until(self, holds: Callable[[Owner], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: holds(self))

    def take(self, batch: Sequence[Delivery]) -> None:
        """Count these as done, without waiting: progress is what `revoked` hands over."""
        for delivery in batch:
            partition = TopicPartition(delivery.topic, delivery.partition)
            assert partition in self.held, f"a record of {partition}, which is not ours: {self.told}"
            self.positions[partition] = delivery.offset + 1
            self.seen.append(delivery)

    async def fetch(self, source: Source, count: int) -> list[Delivery]:
        """Fetch until so many records have been seen in this call."""
        found: list[Delivery] = []
        while len(found) < count:
            batch = await source.fetch()
            assert batch, "fetch returned nothing"
            self.take(batch)
            found += batch
        return found

    async def _tell(self, what: str, partitions: Collection[TopicPartition]) -> None:
        async with self._changed:
            self.told.append((what, frozenset(partitions)))
            self._changed.notify_all()


def records(topic: str, count: int, start: int = 0) -> list[Record]:
    return [Record(topic, f"key-{n}".encode(), str(n).encode(), []) for n in range(start, start + count)]


async def publish(sink: Sink, topic: str, count: int, start: int = 0) -> list[TopicPartition]:
    """Where each of so many numbered records went."""
    receipts = await sink.publish(records(topic, count, start))
    return [TopicPartition(topic, receipt.partition) for receipt in receipts]


def offsets(deliveries: Sequence[Delivery]) -> dict[TopicPartition, list[int]]:
    found: dict[TopicPartition, list[int]] = {}
    for delivery in deliveries:
        found.setdefault(TopicPartition(delivery.topic, delivery.partition), []).append(delivery.offset)
    return found


def values(deliveries: Sequence[Delivery]) -> list[int]:
    return sorted(int(delivery.value or b"-1") for delivery in deliveries)


def all_of(topic: str, partitions: int) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for partition in range(partitions)]
