"""What was fetched and not yet taken by the owner of a source: the loop's side of a consumer.

Only the event loop touches it. It is what makes `Source.fetch` safe to cancel (a record stays here until
`fetch` returns it), and what makes pause and revoke hold at once, before the client has heard of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection

from maypole.bus.ports import Delivery, TopicPartition


class Inbox:
    """`batch_max` bounds what `take` returns; `on_taken` is called once for each batch that leaves the queue."""

    def __init__(self, batch_max: int, on_taken: Callable[[], None]) -> None:
        self._batch_max = batch_max
        self._on_taken = on_taken
        self._batches: deque[list[Delivery]] = deque()
        self._resumed: deque[list[Delivery]] = deque()
        self._held: dict[TopicPartition, list[Delivery]] = {}
        self._paused: set[TopicPartition] = set()
        self._failure: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    def offer(self, batch: list[Delivery]) -> None:
        self._batches.append(batch)
        self._wake()

    def fail(self, reason: BaseException) -> None:
        """From now on `take` raises this, once what lies here was taken. The first reason stays."""
        if self._failure is None:
            self._failure = reason
        self._wake()

    def clear(self) -> None:
        while self._batches:
            self._batches.popleft()
            self._on_taken()
        self._resumed.clear()
        self._held.clear()

    async def take(self) -> list[Delivery]:
        while True:
            batch = self.ready()
            if batch:
                return batch
            if self._failure is not None:
                raise self._failure
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._paused.difference_update(partitions)
        for partition in partitions:
            records = self._held.pop(partition, [])
            for start in range(0, len(records), self._batch_max):
                self._resumed.append(records[start : start + self._batch_max])
        self._wake()

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Forget every record of these partitions, and that they were paused."""
        gone = set(partitions)
        self._paused -= gone
        for partition in gone:
            self._held.pop(partition, None)
        for queue in (self._resumed, self._batches):
            for index, batch in enumerate(queue):
                queue[index] = [d for d in batch if (d.topic, d.partition) not in gone]

    def ready(self) -> list[Delivery]:
        """What `take` would return now, without waiting; empty when it would wait."""
        while self._resumed:
            batch = self._unpaused(self._resumed.popleft())
            if batch:
                return batch
        while self._batches:
            batch = self._unpaused(self._batches.popleft())
            self._on_taken()
            if batch:
                return batch
        return []

    def _unpaused(self, batch: list[Delivery]) -> list[Delivery]:
        if not self._paused:
            return batch
        free = []
        for delivery in batch:
            partition = TopicPartition(delivery.topic, delivery.partition)
            if partition in self._paused:
                self._held.setdefault(partition, []).append(delivery)
            else:
                free.append(delivery)
        return free

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
