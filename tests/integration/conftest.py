"""A platform on each kind of broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from maypole.bus.composition import Platform, open_platform
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.stores.memory import MemoryStores
from maypole.settings import Settings


@pytest.fixture(params=["memory", "kafka"])
async def platform(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Platform]:
    """A connection with an empty cast: whoever an earlier test left announced is retired. In memory time is virtual."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            clock = await stack.enter_async_context(virtual_time())
            transport = await stack.enter_async_context(MemoryTransport(MemoryBroker(clock.now)))
            platform = await stack.enter_async_context(
                open_platform(Settings(home=tmp_path), transport, clock.now, MemoryStores(clock.now).open)
            )
        else:
            bootstrap = request.getfixturevalue("kafka")
            platform = await stack.enter_async_context(open_platform(Settings(home=tmp_path, kafka=bootstrap)))
            for declaration in platform.catalog.view.active():
                await platform.catalog.retire(declaration["name"])
        yield platform
