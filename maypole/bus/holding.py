"""Records of retry topics that were fetched before their time: kept, in order, while their partitions stand still.

Nothing of them is in work: they fill no window and stop nobody, and whoever takes a partition over reads them again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from maypole.bus.moves import RETRY_DUE, HeaderUnreadable, time_in
from maypole.bus.ports import Delivery, TopicPartition
from maypole.bus.retry import IN_PLACE_SECONDS_MAX

CLOCKS_APART_SECONDS: Final = 2.0
"""So much later than its delay a record is sent on: its due time was told by another clock than the broker's."""


class Holding:
    """At most what was fetched in one batch of each partition: a partition of which something is kept is paused."""

    def __init__(self, delays: Mapping[str, float], now: Callable[[], float]) -> None:
        """`delays`: by retry topic, in seconds. `now` gives seconds since the epoch."""
        self._delays = delays
        self._now = now
        self._kept: dict[TopicPartition, deque[Delivery]] = {}

    def sift(self, batch: Sequence[Delivery]) -> tuple[Sequence[Delivery], Sequence[TopicPartition]]:
        """What may be handled now, and which partitions are to be paused. What comes behind a record that is kept is kept too."""
        delays = self._delays
        if not any(delivery.topic in delays for delivery in batch):
            return batch, ()
        now_ms = self._now() * 1000
        free = []
        paused = []
        for delivery in batch:
            if delivery.topic in delays:
                at = TopicPartition(delivery.topic, delivery.partition)
                if at not in self._kept and self._release_ms(delivery) > now_ms:
                    self._kept[at] = deque()
                    paused.append(at)
                if at in self._kept:
                    self._kept[at].append(delivery)
                    continue
            free.append(delivery)
        return free, paused

    def release(self) -> tuple[Sequence[Delivery], Sequence[TopicPartition]]:
        """What has become due, and the partitions of which nothing is kept any more."""
        now_ms = self._now() * 1000
        due = []
        empty = []
        for at, kept in list(self._kept.items()):
            while kept and self._release_ms(kept[0]) <= now_ms:
                due.append(kept.popleft())
            if not kept:
                del self._kept[at]
                empty.append(at)
        return due, empty

    def seconds_left(self) -> float | None:
        """Until something is due; None while nothing is kept."""
        if not self._kept:
            return None
        # In milliseconds, as `release` compares: seconds may round to nothing left while it is not due yet.
        return max(0.0, min(self._release_ms(kept[0]) for kept in self._kept.values()) - self._now() * 1000) / 1000

    def drop(self, partitions: Iterable[TopicPartition]) -> None:
        """These are somebody else's."""
        for at in partitions:
            self._kept.pop(at, None)

    def _release_ms(self, delivery: Delivery) -> float:
        """When it is due; or when its topic's delay has passed, and what is not due then is sent on, so that none holds up the rest."""
        try:
            due_ms = time_in(dict(delivery.headers), RETRY_DUE)
        except HeaderUnreadable:
            return 0  # a dead letter, at once
        delay_seconds = max(self._delays[delivery.topic], IN_PLACE_SECONDS_MAX) + CLOCKS_APART_SECONDS
        return min(due_ms, delivery.timestamp_ms + delay_seconds * 1000)
