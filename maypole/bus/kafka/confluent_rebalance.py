"""What a group member does when its partitions change; librdkafka calls it inside a poll, on the member's thread.

The thread waits while the owner of the source answers on the loop, so nobody else gets a partition before its
owner has let go of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

import confluent_kafka as ck
from confluent_kafka import KafkaException

from maypole.bus.kafka.confluent_commits import Commits
from maypole.bus.kafka.convert import native, port
from maypole.bus.kafka.inbox import Inbox
from maypole.bus.kafka.thread_bridge import ThreadBridge
from maypole.bus.ports import Assignment, TopicPartition

_log = logging.getLogger("maypole.bus.kafka")

_COMMITTED_SECONDS = 5.0


class Rebalance:
    """`ours` maps each partition of this member to the offset at which it began."""

    def __init__(
        self,
        bridge: ThreadBridge,
        inbox: Inbox,
        commits: Commits,
        assignment: Assignment,
        *,
        revoke_seconds: float,
        stopping: Callable[[], bool],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.ours: dict[TopicPartition, int] = {}
        self.answered = False
        """The group has given this member a share, be it nothing."""
        self.changed: set[TopicPartition] = set()
        self.paused: set[TopicPartition] = set()
        """Of ours, those that the owner wants to stand still; what comes back runs."""
        self._bridge = bridge
        self._inbox = inbox
        self._commits = commits
        self._assignment = assignment
        self._revoke_seconds = revoke_seconds
        self._stopping = stopping
        self._failed = failed
        self._left = False
        self._anew: dict[str, set[int]] = {}
        """Of topics that were made anew, the partitions that this member has begun again."""

    def assigned(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition], *, incremental: bool) -> None:
        self.answered = True
        # Nothing may leave this callback: the binding would tear the client down in the middle of a poll.
        try:
            starts = self._starts(consumer, port(partitions))
            for partition in starts:
                if partition.partition not in self._anew.get(partition.topic, {partition.partition}):
                    # Whoever let go of the topic that is gone may have committed its position in it as one in this topic.
                    starts[partition] = ck.OFFSET_BEGINNING
                    self._anew[partition.topic].add(partition.partition)
            offsets = [ck.TopicPartition(p.topic, p.partition, offset) for p, offset in starts.items()]
            if incremental:
                consumer.incremental_assign(offsets)
            else:
                consumer.assign(offsets)
            self.ours.update(starts)
            self.changed.update(starts)
            # Also when it is nothing: the owner may wait for its first share.
            self._say_assigned(consumer, list(starts), incremental=incremental)
        except asyncio.CancelledError:
            _log.info("bus.assignment_abandoned partitions=%s", port(partitions))
        except BaseException as error:  # noqa: BLE001 - raised from `fetch`
            self._failed(error)

    def _say_assigned(self, consumer: ck.Consumer, partitions: list[TopicPartition], *, incremental: bool) -> None:
        wanted = self._bridge.ask(self._assignment.assigned(partitions), lambda: self._settle(consumer), self._stopping)
        for partition, offset in (wanted or {}).items():
            if offset != self.ours.get(partition):
                restart_at(consumer, partition, offset, self.ours, incremental=incremental)

    def nothing_assigned(self, consumer: ck.Consumer) -> None:
        """Say to the owner that its share is nothing, which the broker does not; more may come later."""
        self.answered = True
        try:
            self._bridge.ask(self._assignment.assigned([]), lambda: self._settle(consumer), self._stopping)
        except asyncio.CancelledError:
            return
        except BaseException as error:  # noqa: BLE001 - raised from `fetch`
            self._failed(error)

    def revoked(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        ours = [partition for partition in port(partitions) if partition in self.ours]
        if ours and not self._left:
            self.give_back(consumer, ours)

    def made_anew(self, consumer: ck.Consumer, topic: str, *, incremental: bool) -> None:
        """The owner lets go of what it has of the topic and gets it again; positions in the one that is gone mean nothing in this one."""
        partitions = [partition for partition in self.ours if partition.topic == topic]
        self._anew[topic] = {partition.partition for partition in partitions}
        try:
            self._bridge.ask(self._take_back(partitions), lambda: self._settle(consumer), lambda: False)
        except TimeoutError:
            _log.warning("bus.revoke_timed_out seconds=%s partitions=%s", self._revoke_seconds, partitions)
        self.paused.difference_update(partitions)
        try:
            for partition in partitions:
                restart_at(consumer, partition, ck.OFFSET_BEGINNING, self.ours, incremental=incremental)
            self.changed.update(partitions)
            self._say_assigned(consumer, partitions, incremental=incremental)
        except asyncio.CancelledError:
            _log.info("bus.assignment_abandoned partitions=%s", partitions)
        except BaseException as error:  # noqa: BLE001 - raised from `fetch`
            self._failed(error)

    def lost(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        ours = [partition for partition in port(partitions) if partition in self.ours]
        if ours and not self._left:
            self.lose(consumer, ours)

    def lose(self, consumer: ck.Consumer, partitions: Collection[TopicPartition]) -> None:
        self._forget(partitions)
        try:
            self._bridge.ask(self._say_lost(partitions), lambda: self._settle(consumer), lambda: False)
        except BaseException as error:  # noqa: BLE001 - raised from `fetch`
            self._failed(error)

    def leave(self, consumer: ck.Consumer) -> None:
        """Give everything back; what librdkafka still says about it afterwards is no news."""
        if self.ours:
            self.give_back(consumer, list(self.ours))
        self._left = True

    def give_back(self, consumer: ck.Consumer, partitions: Collection[TopicPartition]) -> None:
        try:
            positions = self._bridge.ask(self._take_back(partitions), lambda: self._settle(consumer), lambda: False)
            self._commits.settle(consumer, self.ours, positions)
        except TimeoutError:
            _log.warning("bus.revoke_timed_out seconds=%s partitions=%s", self._revoke_seconds, list(partitions))
        except BaseException as error:  # noqa: BLE001 - raised from `fetch`
            self._failed(error)
        finally:
            self._forget(partitions)

    async def _take_back(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        self._inbox.drop(partitions)
        return await asyncio.wait_for(self._assignment.revoked(partitions), self._revoke_seconds)

    async def _say_lost(self, partitions: Collection[TopicPartition]) -> None:
        self._inbox.drop(partitions)
        self._assignment.lost(partitions)

    def _settle(self, consumer: ck.Consumer) -> None:
        # The owner may await a commit of its own before it lets go, and nobody else is here to send it.
        if self._commits.wanted:
            self._commits.settle(consumer, self.ours, {})

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        self.changed.update(partitions)
        self.paused.difference_update(partitions)
        for partition in partitions:
            self.ours.pop(partition, None)

    def _starts(self, consumer: ck.Consumer, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """The committed offset of each, or its oldest record where there is none.

        Explicit, because `auto.offset.reset` could not tell a new partition from an offset that has expired.
        """
        if not partitions:
            return {}
        while True:
            try:
                answers = consumer.committed(native(partitions), timeout=_COMMITTED_SECONDS)
                error = next((a.error for a in answers if a.error is not None), None)
                if error is None:
                    return {TopicPartition(a.topic, a.partition): a.offset if a.offset >= 0 else ck.OFFSET_BEGINNING for a in answers}
                reason = str(error)
            except KafkaException as exception:
                reason = str(exception)
            if self._stopping():
                return {}
            _log.warning("bus.committed_unknown partitions=%s error=%s", partitions, reason)
            self._bridge.obey_one(0.1)


def restart_at(
    consumer: ck.Consumer, partition: TopicPartition, offset: int, ours: dict[TopicPartition, int], *, incremental: bool
) -> None:
    """Go on elsewhere in a partition: its offset has expired, or its owner keeps another one. librdkafka refuses to seek in
    one that stands still."""
    restart = ck.TopicPartition(partition.topic, partition.partition, offset)
    if incremental:
        consumer.incremental_unassign(native([partition]))
        consumer.incremental_assign([restart])
    else:
        positions = consumer.position(native(p for p in ours if p != partition))
        for position in positions:
            if position.offset < 0:
                # Nothing of it was read yet.
                position.offset = ours[TopicPartition(position.topic, position.partition)]
        consumer.assign([*positions, restart])
    ours[partition] = offset
