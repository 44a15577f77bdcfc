"""The coordinator in this process, beside agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from maypole.bus.composition import Platform
from maypole.services.coordinator.opening import open_coordinator


@asynccontextmanager
async def coordinating(platform: Platform) -> AsyncIterator[asyncio.Task[None]]:
    """Leaving stops it. The task ends when it has stopped, with what it died of.

    Nobody waits until it is in its group: it reads what was written before, too.
    """
    async with open_coordinator(platform) as coordinator:
        task = asyncio.create_task(coordinator.run(), name="coordinator")
        try:
            yield task
        finally:
            coordinator.stop()
            await task
