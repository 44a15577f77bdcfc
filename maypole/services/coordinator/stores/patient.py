"""A store that waits: while the one behind it cannot be used every call is made again, and that is said once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, TypeVar

from maypole.bus.ports import Delivery
from maypole.schemas.identifiers import FlowId
from maypole.services.coordinator.stores.port import Changes, Parked, Row, Store, StoreUnavailable, Taken

log = logging.getLogger("maypole.services.coordinator")

_FIRST_SECONDS: Final = 0.1
_LONGEST_SECONDS: Final = 5.0

T = TypeVar("T")


class PatientStore:
    """Raises everything of the port but `StoreUnavailable`. Repeating is safe: a change whose answer was lost is the same again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._told = False

    async def take(self, partition: int, version: str) -> Taken:
        return await self._patiently(lambda: self._store.take(partition, version))

    async def save(self, partition: int, epoch: int, next_offset: int, changes: Changes) -> None:
        await self._patiently(lambda: self._store.save(partition, epoch, next_offset, changes))

    async def load(self, partition: int, flows: Collection[FlowId]) -> Mapping[FlowId, Row]:
        if not flows:
            return {}
        return await self._patiently(lambda: self._store.load(partition, flows))

    async def due(self, partition: int, until_ms: int, limit: int) -> Sequence[FlowId]:
        return await self._patiently(lambda: self._store.due(partition, until_ms, limit))

    async def next_due(self, partition: int) -> int | None:
        return await self._patiently(lambda: self._store.next_due(partition))

    async def pending(self, partition: int) -> Sequence[FlowId]:
        return await self._patiently(lambda: self._store.pending(partition))

    async def parked(self, partition: int) -> Sequence[Parked]:
        return await self._patiently(lambda: self._store.parked(partition))

    async def parked_records(self, partition: int, flow: FlowId) -> Sequence[Delivery]:
        return await self._patiently(lambda: self._store.parked_records(partition, flow))

    async def forget(self, partition: int, ended_before_ms: int, limit: int) -> int:
        return await self._patiently(lambda: self._store.forget(partition, ended_before_ms, limit))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        seconds = _FIRST_SECONDS
        while True:
            try:
                found = await call()
            except StoreUnavailable as error:
                if not self._told:
                    log.error("coordinator.store_unavailable", extra={"error": str(error), "then": "waits, and goes on by itself"})
                self._told = True
                await asyncio.sleep(seconds)
                seconds = min(2 * seconds, _LONGEST_SECONDS)
                continue
            if self._told:
                self._told = False
                log.warning("coordinator.store_back")
            return found
