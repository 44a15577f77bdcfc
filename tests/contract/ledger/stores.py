"""One ledger to hold to the contract, in each of the stores, and what a test needs to be several owners of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

from maypole.bus.ledger.port import Answer, Ask, Ledger, Place
from maypole.bus.ledger.transitions import Begin, Input
from maypole.bus.ports import TopicPartition
from maypole.bus.stores.memory import MemoryStore
from maypole.bus.stores.postgres import open_postgres_ledger
from maypole.bus.stores.processes import Process, process_with
from maypole.bus.stores.sqlite import open_sqlite_ledger
from maypole.schemas.identifiers import FlowId, StepId

SKEW_MS, LEASE_MS = 500, 30_000
AT = TopicPartition("research.requested", 0)
PLACE = Place(FlowId("a flow"), AT)


class Kind(StrEnum):
    MEMORY = "memory"
    SQLITE = "sqlite"
    POSTGRES = "postgres"

    @property
    def several(self) -> bool:
        """More than one owner at a time."""
        return self is not Kind.SQLITE


@dataclass
class Clock:
    now_ms: int = 1_767_225_600_000

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class World:
    """`open` gives the ledger to an instance; leaving it, the instance is dead."""

    clock: Clock
    open: Callable[[str], AbstractAsyncContextManager[Ledger]]

    def begin(self, *, acts: bool = True, retries: bool = True, lease_ms: int = LEASE_MS) -> Begin:
        return Begin("", self.clock.now_ms + lease_ms, self.clock.now_ms, SKEW_MS, acts, retries)


def memory_world() -> World:
    clock = Clock()
    store = MemoryStore(clock)

    @asynccontextmanager
    async def opening(instance: str) -> AsyncIterator[Ledger]:
        yield store.open(instance)
        store.dead.add(instance)

    return World(clock, opening)


def sqlite_world(folder: Path) -> World:
    clock = Clock()
    return World(clock, lambda instance: open_sqlite_ledger(folder / "ledger.sqlite3", instance, clock))


def postgres_world(address: str, agent: str) -> World:
    clock = Clock()

    @asynccontextmanager
    async def opening(instance: str) -> AsyncIterator[Ledger]:
        async with AsyncExitStack() as stack:
            process = await stack.enter_async_context(another_process())
            yield await stack.enter_async_context(open_postgres_ledger(address, agent, instance, clock, process=process))

    return World(clock, opening)


@asynccontextmanager
async def another_process() -> AsyncIterator[Process]:
    """One that lives as long as this is entered, and that nothing else is asked of."""
    running = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)
    try:
        found = process_with(running.pid)
        assert found is not None
        yield found
    finally:
        running.kill()
        await running.wait()


def step(name: object) -> StepId:
    return StepId(str(uuid5(NAMESPACE_OID, str(name))))


async def ask(ledger: Ledger, name: object, asked: Input, outcome: bytes | None = None, undo: bytes | None = None) -> Answer:
    [answer] = await ledger.ask([Ask(step(name), asked, PLACE, outcome, undo)])
    return answer
