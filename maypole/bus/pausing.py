"""Subscriptions that stand still: what waits of each, and the partitions of which nothing more is fetched.

What waits has been taken up and keeps its lane, because its flow stays in order, but no worker. (What was fetched before its
time has no lane yet, and waits in `holding.py`.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from maypole.bus.ports import Source, TopicPartition
from maypole.bus.work import Ownership, Work

WAITING_MAX: Final = 2000
"""So many records may wait besides those that are in hand. One that could wait on a retry topic goes back there before."""


class Pausing:
    """Of one delivery loop, whose partitions and lanes it sees as they are at any time. `go_on` takes up what is woken."""

    def __init__(
        self, owned: Mapping[TopicPartition, Ownership], lanes: Mapping[object, deque[Work] | None], go_on: Callable[[Sequence[Work]], None]
    ) -> None:
        self._owned = owned
        self._lanes = lanes
        self._go_on = go_on
        self._waiting: dict[str, dict[Work, None]] = {}
        self._paused: dict[str, Collection[str]] = {}
        """The topics of each subscription of which nothing is fetched."""
        self.source: Source | None = None

    @property
    def waiting(self) -> int:
        """Records that wait, and those behind them in their lanes."""
        return sum(1 + len(self._lanes[work.lane] or ()) for waiting in self._waiting.values() for work in waiting)

    @property
    def is_full(self) -> bool:
        return bool(self._waiting) and sum(map(len, self._waiting.values())) >= WAITING_MAX

    def hold(self, subscription: str, work: Work) -> None:
        self._waiting.setdefault(subscription, {})[work] = None

    def of(self, subscription: str) -> Collection[Work]:
        """In the order in which they began to wait."""
        return self._waiting.get(subscription, {})

    def wake(self, subscription: str, works: Collection[Work]) -> None:
        if not works:
            return
        waiting = self._waiting[subscription]
        for work in works:
            del waiting[work]
        if not waiting:
            del self._waiting[subscription]
        self._go_on(list(works))

    def pause(self, subscription: str, topics: Collection[str]) -> None:
        """Nothing more of it is fetched, until `resume`; also of partitions that come to us later."""
        if subscription not in self._paused:
            self._paused[subscription] = topics
            self._pause(self._owned)

    def resume(self, subscription: str) -> None:
        topics = self._paused.pop(subscription, None)
        if topics is not None and self.source is not None:
            self.source.resume([at for at in self._owned if at.topic in topics])

    def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self._pause(partitions)

    def left(self) -> None:
        """What waits of partitions that were taken away waits for nothing: it is their next owner's."""
        for subscription, waiting in list(self._waiting.items()):
            self.wake(subscription, [work for work in waiting if not work.ownership.taking])

    def _pause(self, partitions: Collection[TopicPartition]) -> None:
        paused = [at for at in partitions if any(at.topic in topics for topics in self._paused.values())]
        if paused and self.source is not None:
            self.source.pause(paused)
