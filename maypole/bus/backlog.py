"""The commands that lay there when an agent came: a fence among them forbids a step that it would take up again at that moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Final

from maypole.bus.partition_counts import partition_counts
from maypole.bus.ports import Cluster, TopicPartition

log = logging.getLogger("maypole.bus.backlog")

BACKLOG_SECONDS_MAX: Final = 30.0
"""A lane of commands that cannot be read must not keep the agent from its work for ever."""


class Backlog:
    """Steps that act on the outside wait for it: whoever was told that a flow is cancelled must not see it act after that.

    It is over once all of it was read and every fence in it obeyed. What else lies there may take long (an undo waits for what
    it undoes), and forbids nothing.
    """

    def __init__(self, agent: str, ends: Mapping[TopicPartition, int]) -> None:
        """`ends`: of each partition with commands that nobody has obeyed, the offset behind the last of them."""
        self._agent = agent
        self._unread = dict(ends)
        self._in_hand: set[tuple[TopicPartition, int]] = set()
        self._joined = False
        self._over = asyncio.Event()
        self._look()

    async def wait(self) -> None:
        """At once where nothing lay there."""
        if self._over.is_set():
            return
        try:
            async with asyncio.timeout(BACKLOG_SECONDS_MAX):
                await self._over.wait()
        except TimeoutError:
            if not self._over.is_set():
                about = {"agent": self._agent, "partitions": sorted(self._unread), "commands": len(self._in_hand)}
                log.warning("commands.backlog_unread", extra={**about, "seconds": BACKLOG_SECONDS_MAX, "then": "steps act without it"})
                self._over.set()

    def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """What lies in the partitions of others is theirs."""
        if partitions and not self._joined:
            self._joined = True
            self._unread = {at: end for at, end in self._unread.items() if at in partitions}
            self._look()

    def gone(self, partitions: Collection[TopicPartition]) -> None:
        for at in partitions:
            self._unread.pop(at, None)
        self._look()

    def taken(self, at: TopicPartition, offset: int) -> None:
        end = self._unread.get(at)
        if end is None:
            return
        if offset < end:
            self._in_hand.add((at, offset))
        if offset + 1 >= end:
            del self._unread[at]
        self._look()

    def passed(self, at: TopicPartition, offset: int) -> None:
        """It was obeyed, or is no fence."""
        if self._in_hand:
            self._in_hand.discard((at, offset))
            self._look()

    def _look(self) -> None:
        if not self._unread and not self._in_hand:
            self._over.set()


async def backlog_of(agent: str, cluster: Cluster, group: str, topic: str) -> Backlog:
    """As it is now: before the group is joined. A group without an offset begins at the oldest record."""
    count = (await partition_counts(cluster, [topic]))[topic]
    places = [TopicPartition(topic, partition) for partition in range(count)]
    done = await cluster.committed(group, places)
    watermarks = await cluster.watermarks(places)
    return Backlog(agent, {at: end for at, (oldest, end) in watermarks.items() if max(oldest, done.get(at, oldest)) < end})
