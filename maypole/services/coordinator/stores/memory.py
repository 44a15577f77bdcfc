"""The coordinator's store in memory: for tests and virtual time. What outlives a coordinator is a `MemoryStore`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from maypole.bus.ports import Delivery
from maypole.schemas.identifiers import FlowId
from maypole.services.coordinator.stores.port import Changes, Parked, Row, StoreUnavailable, Superseded, Taken


@dataclass(slots=True)
class _Partition:
    version: str = ""
    epoch: int = 0
    next_offset: int = 0
    flows: dict[FlowId, Row] = field(default_factory=dict)
    parked: dict[FlowId, tuple[str, list[Delivery]]] = field(default_factory=dict)


def _never(call: str) -> bool:
    return False


class MemoryStore:
    """`refuse` is asked once per call with the name of the method: the call raises `StoreUnavailable`, and changes nothing."""

    def __init__(self, refuse: Callable[[str], bool] = _never) -> None:
        self.refuse = refuse
        self._partitions: dict[int, _Partition] = {}

    def rows(self) -> Sequence[Row]:
        """Everything, for whoever compares."""
        return [row for _, found in sorted(self._partitions.items()) for row in found.flows.values()]

    def version_of(self, partition: int) -> str:
        return self._partitions[partition].version

    async def take(self, partition: int, version: str) -> Taken:
        found = await self._of("take", partition)
        if found.version != version:
            found = self._partitions[partition] = _Partition(version, found.epoch)
        found.epoch += 1
        return Taken(found.epoch, found.next_offset)

    async def save(self, partition: int, epoch: int, next_offset: int, changes: Changes) -> None:
        found = await self._of("save", partition)
        if found.epoch != epoch:
            raise Superseded(partition, epoch)
        found.next_offset = next_offset
        found.flows.update((row.flow_id, row) for row in changes.rows)
        for flow_id in changes.released:
            found.parked.pop(flow_id, None)
        for flow_id, pin, record in changes.parked:
            before = found.parked.get(flow_id, (pin, []))[1]
            found.parked[flow_id] = pin, [*before, record]

    async def load(self, partition: int, flows: Collection[FlowId]) -> Mapping[FlowId, Row]:
        found = (await self._of("load", partition)).flows
        return {flow_id: found[flow_id] for flow_id in flows if flow_id in found}

    async def due(self, partition: int, until_ms: int, limit: int) -> Sequence[FlowId]:
        flows = (await self._of("due", partition)).flows.values()
        due = sorted((row.due_ms, row.flow_id) for row in flows if row.due_ms is not None and row.due_ms <= until_ms)
        return [flow_id for _, flow_id in due[:limit]]

    async def next_due(self, partition: int) -> int | None:
        flows = (await self._of("next_due", partition)).flows.values()
        return min((row.due_ms for row in flows if row.due_ms is not None), default=None)

    async def pending(self, partition: int) -> Sequence[FlowId]:
        return [row.flow_id for row in (await self._of("pending", partition)).flows.values() if row.pending]

    async def parked(self, partition: int) -> Sequence[Parked]:
        found = (await self._of("parked", partition)).parked
        return [Parked(flow_id, pin, records[0].timestamp_ms, len(records)) for flow_id, (pin, records) in found.items()]

    async def parked_records(self, partition: int, flow: FlowId) -> Sequence[Delivery]:
        found = (await self._of("parked_records", partition)).parked
        return list(found[flow][1]) if flow in found else []

    async def forget(self, partition: int, ended_before_ms: int, limit: int) -> int:
        flows = (await self._of("forget", partition)).flows
        old = [row.flow_id for row in flows.values() if row.ended_ms is not None and row.ended_ms < ended_before_ms][:limit]
        for flow_id in old:
            del flows[flow_id]
        return len(old)

    async def _of(self, call: str, partition: int) -> _Partition:
        # At least one turn of the loop: a caller must not count on nothing happening meanwhile.
        await asyncio.sleep(0)
        if self.refuse(call):
            raise StoreUnavailable(f"the store in memory was told to refuse {call}")
        return self._partitions.setdefault(partition, _Partition())
