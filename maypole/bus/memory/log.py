"""One partition: records in order, the oldest of which may be gone."""

from __future__ import annotations

import bisect

from maypole.bus.ports import Delivery, Record


class PartitionLog:
    """`arrival` times are when a record can be read, on the loop's clock; they never run backwards within a partition."""

    def __init__(self, topic: str, partition: int) -> None:
        self._topic = topic
        self._partition = partition
        self._records: list[Delivery] = []
        self._arrivals: list[float] = []
        self.oldest = 0
        self.deleted: list[Delivery] = []
        """What retention has taken."""

    @property
    def end(self) -> int:
        return self.oldest + len(self._records)

    def append(self, record: Record, timestamp_ms: int, arrival: float) -> int:
        offset = self.end
        self._records.append(Delivery(self._topic, self._partition, offset, timestamp_ms, record.key, record.value, tuple(record.headers)))
        self._arrivals.append(max(arrival, self._arrivals[-1]) if self._arrivals else arrival)
        return offset

    def read(self, start: int, count: int, now: float) -> list[Delivery]:
        """At most `count` records from `start` on that have arrived. `start` must not lie before `oldest`."""
        first = start - self.oldest
        arrived = bisect.bisect_right(self._arrivals, now)
        return self._records[first : min(first + count, arrived)]

    def ever(self, start: int) -> list[Delivery]:
        """Everything from `start` on that was ever written, arrived or deleted: for whoever judges a run."""
        if start < self.oldest:
            return [*self.deleted[start:], *self._records]
        return self._records[start - self.oldest :]

    def next_arrival(self, start: int) -> float | None:
        """When the record at `start` can be read; None when it does not exist yet."""
        index = start - self.oldest
        return self._arrivals[index] if index < len(self._arrivals) else None

    def offset_at(self, timestamp_ms: int) -> int:
        for delivery in self._records:
            if delivery.timestamp_ms >= timestamp_ms:
                return delivery.offset
        return self.end

    def trim(self, before: int) -> None:
        """Delete everything before an offset, as retention does."""
        gone = min(max(0, before - self.oldest), len(self._records))
        self.deleted += self._records[:gone]
        del self._records[:gone]
        del self._arrivals[:gone]
        self.oldest += gone
