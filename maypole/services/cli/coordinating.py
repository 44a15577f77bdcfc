"""A coordinator in this process: started beside agents, stopped after what it has read is kept and told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from maypole.bus.composition import Platform
from maypole.services.coordinator.opening import open_coordinator
from maypole.services.coordinator.service import PATIENCE_SECONDS_DEFAULT, Coordinator

_DRAIN_SECONDS: Final = 10.0
"""What is not told by then is told by the next coordinator."""


@asynccontextmanager
async def coordinating(
    platform: Platform, *, patience_seconds: float = PATIENCE_SECONDS_DEFAULT
) -> AsyncIterator[tuple[Coordinator, asyncio.Task[None]]]:
    """The task ends when the coordinator was told to stop, or with its error. It need not be ready for a flow to start."""
    async with open_coordinator(platform, patience_seconds=patience_seconds) as coordinator:
        task = asyncio.create_task(coordinator.run(), name="coordinator")
        try:
            yield coordinator, task
        finally:
            coordinator.stop()
            try:
                await asyncio.wait_for(task, _DRAIN_SECONDS)
            except TimeoutError:
                pass
