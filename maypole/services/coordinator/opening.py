"""A coordinator on a platform: the wiring of its concrete parts, in one place for the command line and for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from maypole.bus.composition import Platform
from maypole.services.coordinator.service import PATIENCE_SECONDS_DEFAULT, Coordinator, Surroundings
from maypole.services.coordinator.stores.opening import open_store
from maypole.services.coordinator.stores.port import Store


def coordinator_of(platform: Platform, store: Store, *, patience_seconds: float = PATIENCE_SECONDS_DEFAULT) -> Coordinator:
    around = Surroundings(
        platform.transport, platform.sink, platform.catalog, platform.contracts, store, platform.now, platform.ensure, platform.instance
    )  # fmt: skip
    return Coordinator(around, patience_seconds=patience_seconds)


@asynccontextmanager
async def open_coordinator(platform: Platform, *, patience_seconds: float = PATIENCE_SECONDS_DEFAULT) -> AsyncIterator[Coordinator]:
    """With the store that the settings name. Raises what opening it raises. Whoever opens it runs it."""
    cluster_id = await platform.transport.cluster.cluster_id()
    async with open_store(platform.settings.store, platform.home, cluster_id) as store:
        yield coordinator_of(platform, store, patience_seconds=patience_seconds)
