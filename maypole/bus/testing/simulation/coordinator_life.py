"""What the process of a saga coordinator does in a simulated run."""

from __future__ import annotations

from dataclasses import replace

from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.testing.simulation.stage import Stage
from maypole.services.coordinator.opening import coordinator_of
from maypole.services.coordinator.service import Coordinator
from maypole.services.coordinator.stores.port import Store


class CoordinatorLife:
    """`store` is what all coordinators of the run share, and outlives them."""

    def __init__(self, stage: Stage, store: Store, name: str, transport: MemoryTransport) -> None:
        self._stage = stage
        self._store = store
        self._name = name
        self._transport = transport
        self._coordinator: Coordinator | None = None

    @property
    def ready(self) -> bool:
        return self._coordinator is not None and self._coordinator.ready.is_set()

    async def run(self) -> None:
        async with self._stage.platform(self._transport) as platform:
            self._coordinator = coordinator_of(replace(platform, instance=self._name), self._store)
            await self._coordinator.run()

    def stop(self) -> None:
        if self._coordinator is not None:
            self._coordinator.stop()

    def presumed_dead(self, dead: bool) -> None:
        """Nobody asks: whoever takes a partition over raises its epoch."""
