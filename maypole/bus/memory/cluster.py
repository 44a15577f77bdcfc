"""`Cluster` on the broker in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.ports import BrokerUnreachable, GroupActive, TopicPartition, TopicSpec


class MemoryCluster:
    """`check` raises when the process that asks is dead."""

    def __init__(self, broker: MemoryBroker, check: Callable[[], None]) -> None:
        self._broker = broker
        self._check = check

    async def cluster_id(self) -> str:
        self._ask()
        return self._broker.cluster_id

    async def topics(self) -> Mapping[str, int]:
        self._ask()
        return self._broker.topics()

    async def topic_config(self, topic: str) -> Mapping[str, str]:
        self._ask()
        return self._broker.config(topic)

    async def create(self, topics: Collection[TopicSpec]) -> None:
        self._ask()
        for spec in topics:
            self._broker.create_topic(spec.name, spec.partitions, spec.config)

    async def watermarks(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        self._ask()
        logs = {partition: self._broker.log(partition) for partition in partitions}
        return {partition: (log.oldest, log.end) for partition, log in logs.items()}

    async def offsets_at(self, partitions: Collection[TopicPartition], timestamp_ms: int) -> Mapping[TopicPartition, int]:
        self._ask()
        return {partition: self._broker.log(partition).offset_at(timestamp_ms) for partition in partitions}

    async def committed(self, group: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        self._ask()
        known = self._broker.group(group).committed
        return {partition: known[partition] for partition in partitions if partition in known}

    async def seed(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        self._ask()
        if self._broker.members(group):
            raise GroupActive(f"offsets of group {group} cannot be set while it has members")
        self._broker.group(group).committed.update(positions)

    def _ask(self) -> None:
        self._check()
        if self._broker.is_away:
            raise BrokerUnreachable("the broker in memory is away: come_back brings it back")
