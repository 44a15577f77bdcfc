"""What all processes of a run share, and outlives them: the loop, the broker, the stores, chance."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from maypole.bus.composition import Platform, open_platform
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import EPOCH
from maypole.bus.runner import OpenLedger
from maypole.bus.stores.memory import MemoryStores
from maypole.bus.testing.simulation.chance import Chance
from maypole.bus.testing.simulation.loop import SimulatedLoop
from maypole.bus.testing.simulation.story import Story
from maypole.settings import Settings

_CATALOG_READ_SECONDS: Final = 3_600.0
"""Reading in vain costs time, and nothing is ever compacted here."""
SESSION_SECONDS: Final = 10.0
"""After which a group gives up on a member that is silent."""


@dataclass(frozen=True, slots=True)
class Stage:
    loop: SimulatedLoop
    broker: MemoryBroker
    stores: MemoryStores
    chance: Chance
    story: Story
    home: Path
    shared: bool
    """Whether agents share their ledgers among several instances."""
    context: Context
    """What all processes find when they start."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return EPOCH + self.loop.elapsed

    def platform(self, transport: MemoryTransport, ledgers: OpenLedger | None = None) -> AbstractAsyncContextManager[Platform]:
        """What a process finds when it connects."""
        settings = Settings(home=self.home, tracing="off")
        return open_platform(settings, transport, self.now, ledgers, catalog_read_seconds=_CATALOG_READ_SECONDS)

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """Done by nobody's process, so it happens whoever has died meanwhile."""
        self.loop.call_later(seconds, call, context=Context())
