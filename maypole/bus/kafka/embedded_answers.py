"""Questions that the embedded broker does not answer, found out in another way."""

from __future__ import annotations

import time
from collections.abc import Mapping

import confluent_kafka as ck
from confluent_kafka import KafkaException

from maypole.bus.kafka.confluent_settings import ConfluentSettings, GroupProtocol
from maypole.bus.kafka.convert import port
from maypole.bus.ports import TopicPartition

_SLICE = 0.05
_JOIN_SECONDS = 3.0
_SCAN_SECONDS = 10.0


class EmbeddedAnswers:
    """Everything here waits: call it on a thread."""

    def __init__(self, settings: ConfluentSettings) -> None:
        self._settings = settings
        # A group keeps the protocol of its first member for ever.
        self._protocol = GroupProtocol.CLASSIC if settings.protocol is GroupProtocol.CLASSIC else GroupProtocol.CONSUMER

    def offsets_at(self, watermarks: Mapping[TopicPartition, tuple[int, int]], timestamp_ms: int) -> dict[TopicPartition, int]:
        """It says "none" to every time asked for; a partition is 5 MiB at most, so read it."""
        found = {p: end for p, (_, end) in watermarks.items()}
        open_partitions = {p for p, (oldest, end) in watermarks.items() if oldest < end}
        if not open_partitions:
            return found
        consumer = self._settings.open(ck.Consumer, self._settings.reader())
        try:
            consumer.assign([ck.TopicPartition(p.topic, p.partition, watermarks[p][0]) for p in open_partitions])
            deadline = time.monotonic() + _SCAN_SECONDS
            while open_partitions and time.monotonic() < deadline:
                for message in consumer.consume(1000, _SLICE):
                    partition = TopicPartition(str(message.topic()), int(message.partition() or 0))
                    offset = message.offset()
                    if message.error() is not None or offset is None or partition not in open_partitions:
                        continue
                    if message.timestamp()[1] >= timestamp_ms:
                        found[partition] = offset
                        open_partitions.discard(partition)
                    elif offset + 1 >= found[partition]:
                        open_partitions.discard(partition)
        finally:
            consumer.close()
        return found

    def seed(self, group: str, positions: Mapping[TopicPartition, int]) -> bool:
        """Set the offsets of a group that has had members before, as its only member; false when it is not alone.

        The broker remembers such a group for ever and takes commits for it from members alone.
        """
        consumer = self._settings.open(ck.Consumer, self._settings.consumer(group, self._protocol))
        try:
            consumer.subscribe(sorted({p.topic for p in positions}))
            deadline = time.monotonic() + _JOIN_SECONDS
            while not positions.keys() <= set(port(consumer.assignment())):
                if time.monotonic() > deadline:
                    return False
                consumer.poll(_SLICE)
            consumer.commit(offsets=[ck.TopicPartition(p.topic, p.partition, o) for p, o in positions.items()], asynchronous=False)
        except KafkaException:
            return False
        else:
            return True
        finally:
            consumer.close()
