"""`Source` on the broker in memory: one member of a group, and the task that keeps it there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.faults import IncarnationDead
from maypole.bus.memory.remote import carried_out
from maypole.bus.memory.waiting import Wakeup
from maypole.bus.ports import Assignment, BrokerUnreachable, Delivery, Expired, TopicPartition

_log = logging.getLogger("maypole.bus.memory")


class MemoryMember:
    """`keep` runs as a task from opening to closing; it alone talks to the assignment, so calls never overlap."""

    def __init__(
        self,
        broker: MemoryBroker,
        group: str,
        topics: Collection[str],
        assignment: Assignment,
        *,
        batch_max: int,
        revoke_seconds: float,
        expired: Callable[[Expired], None],
    ) -> None:
        self.topics = frozenset(topics)
        self._broker = broker
        self._name = group
        self._group = broker.group(group)
        self._assignment = assignment
        self._batch_max = batch_max
        self._revoke_seconds = revoke_seconds
        self._expired = expired
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._lost: list[TopicPartition] | None = None
        """What it had when the group gave up on it; None while it belongs to the group."""
        self._last: TopicPartition | None = None
        self._share = asyncio.Event()
        self._more = Wakeup()
        self._told_share = False
        self._failure: BaseException | None = None
        self._dead = False
        self._leaving = False
        self._closing = False
        broker.watch(self._more.set, self.topics)
        self._group.join(self)

    async def fetch(self) -> Sequence[Delivery]:
        while True:
            if self._failure is not None and not self._dead:
                raise self._failure
            self._check()
            self._more.clear()
            batch = [] if self._broker.is_away else self._read()
            if batch:
                return batch
            await self._more.wait_until(self._next_arrival())

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._check()
        self._paused.update(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._check()
        self._paused.difference_update(partitions)
        self._more.set()

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        self._check()
        await self._broker.present()
        await carried_out(self._broker.faults.commit_after(self._name), lambda: self._group.commit(self, positions))
        self._check()

    def expel(self) -> None:
        """The group has given up on this member: its partitions are somebody else's before it learns of it."""
        self._lost = [*(self._lost or ()), *(p for p in self._group.held_by(self) if p in self._positions)]
        self._forget(self._lost)
        self._group.leave(self)
        self._share.set()

    def kill(self) -> None:
        """Its process is gone: nobody is told, the group forgets it, and its ports refuse every call."""
        self._dead = True
        self._share.set()
        self._more.set()
        self._broker.unwatch(self._more.set)
        self._group.leave(self)

    def share_changed(self) -> None:
        self._share.set()

    async def keep(self) -> None:
        """Give back and take partitions as the group says; at last give everything back and leave the group."""
        try:
            while not self._dead and not self._leaving:
                self._share.clear()
                await self._look_at_share()
                await self._share.wait()
            if not self._dead:
                await self._give_back(self._group.held_by(self))
        except Exception as error:  # noqa: BLE001 - raised from `fetch`
            self._failure = error
        finally:
            self._closing = True
            self._broker.unwatch(self._more.set)
            self._group.leave(self)
            self._more.set()

    def leave(self) -> None:
        """Have `keep` come to its end, once a change that has begun is through."""
        self._leaving = True
        self._share.set()

    async def _look_at_share(self) -> None:
        if self._lost is not None:
            lost, self._lost = self._lost, None
            if lost:
                self._assignment.lost(lost)
            self._group.join(self)
        leaving = self._group.to_give_back(self)
        if leaving:
            await self._give_back(leaving)
        coming = self._group.to_take(self)
        if coming or not self._told_share:
            self._told_share = True
            self._group.take(self, coming)
            wanted = await self._assignment.assigned(coming) or {}
            held = set(self._group.held_by(self))
            for partition in coming:
                # Lost again while its owner was told of it.
                if partition in held:
                    self._positions[partition] = wanted[partition] if partition in wanted else self._start(partition)
            self._more.set()

    async def _give_back(self, partitions: Collection[TopicPartition]) -> None:
        if not partitions:
            return
        self._forget(partitions)
        try:
            async with asyncio.timeout(self._revoke_seconds):
                positions = await self._assignment.revoked(partitions)
            self._group.commit(self, positions)
        except TimeoutError:
            _log.warning("bus.revoke_timed_out group=%s partitions=%s", self._name, list(partitions))
        finally:
            self._group.give_back(self, partitions)

    def _start(self, partition: TopicPartition) -> int:
        committed = self._group.committed.get(partition)
        return self._broker.log(partition).oldest if committed is None else committed

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self._positions.pop(partition, None)
            self._paused.discard(partition)

    def _read(self) -> list[Delivery]:
        """From one partition after the other, beginning after the one that was served last, so that none starves."""
        now = asyncio.get_running_loop().time()
        batch: list[Delivery] = []
        again: dict[TopicPartition, int] = {}
        for partition in self._in_turn():
            log = self._broker.log(partition)
            if not log.oldest <= self._positions[partition] <= log.end:
                self._expired(Expired(self._name, partition, self._positions[partition], log.oldest))
                self._positions[partition] = log.oldest
            records = log.read(self._positions[partition], self._batch_max - len(batch), now)
            if not records:
                continue
            batch += records
            self._positions[partition] = records[-1].offset + 1
            self._last = partition
            for delivery in records:
                if partition not in again and self._broker.faults.deliver_again(delivery):
                    again[partition] = delivery.offset
            if len(batch) >= self._batch_max:
                break
        self._positions.update(again)
        return batch

    def _in_turn(self) -> list[TopicPartition]:
        open_ones = sorted(p for p in self._positions if p not in self._paused)
        if self._last is None:
            return open_ones
        last = self._last
        return [p for p in open_ones if p > last] + [p for p in open_ones if p <= last]

    def _next_arrival(self) -> float | None:
        if self._broker.is_away:
            return None
        arrivals = [self._broker.log(p).next_arrival(self._positions[p]) for p in self._in_turn()]
        return min((a for a in arrivals if a is not None), default=None)

    def _check(self) -> None:
        if self._dead:
            raise IncarnationDead(f"the process of this member of group {self._name} was killed")
        if self._closing:
            raise BrokerUnreachable(f"the source of group {self._name} is closed")
