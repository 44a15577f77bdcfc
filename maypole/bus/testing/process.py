"""Agents that run inside a test, each with a connection of its own, as if it were a process of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from maypole.bus.agent import Agent
from maypole.bus.backoff import jittered
from maypole.bus.composition import open_platform
from maypole.bus.hook import Untraced
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.runner import AgentRunner
from maypole.bus.starting_offsets import StartFrom
from maypole.bus.stores.memory import MemoryStores
from maypole.bus.testing.errors import AgentCrashed, NotPure
from maypole.bus.testing.repeated import Repeated
from maypole.settings import Settings


@dataclass(frozen=True, slots=True)
class Stage:
    """What all agents of one choreography share. `seed` decides how long they wait before they try again."""

    broker: MemoryBroker
    settings: Settings
    now: Callable[[], float]
    seed: int
    stores: MemoryStores
    check_pure: bool = False


class AgentProcess:
    """From start to stop, or to its death."""

    def __init__(self, agent: Agent, stage: Stage, start: StartFrom, ended: Callable[[AgentProcess], None]) -> None:
        self.agent = agent
        self.failure: BaseException | None = None
        self._stage = stage
        self._start = start
        self._ended = ended
        self._transport = MemoryTransport(stage.broker)
        self._ready = asyncio.Event()
        self._runner: AgentRunner | None = None
        self._ending = False
        self._task = asyncio.create_task(self._live(), name=f"{agent.name} process")
        self._task.add_done_callback(self._note_end)

    async def wait_ready(self) -> None:
        """Until it is announced. Raises what kept it from starting."""
        waiting = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure

    async def stop(self) -> None:
        """In the order of production: fetch no more, finish what was fetched, commit, leave the group."""
        self._ending = True
        if self._runner is None:
            self._task.cancel()
        else:
            self._runner.stop()
        await asyncio.wait({self._task})

    async def kill(self) -> None:
        """At once, as the operating system would: nothing is finished, committed or said."""
        self._ending = True
        self._transport.kill()
        self._task.cancel()
        await asyncio.wait({self._task})
        self.failure = None

    async def _live(self) -> None:
        stage = self._stage
        ledgers = stage.stores.open
        async with self._transport, open_platform(stage.settings, self._transport, stage.now, ledgers) as platform:
            backoff = jittered(random.Random(f"{stage.seed}/{self.agent.name}"))
            self._runner = replace(platform, backoff=backoff).runner(self.agent, Untraced(), start=self._start)
            self._runner.ready = self._ready
            await self._runner.run()

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = _innermost(error)
        elif not self._ending:
            self.failure = RuntimeError(f"agent {self.agent.name} stopped, and nobody had told it to")
        self._ended(self)


class Cast:
    """Who runs, who ran, and who crashed."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._running: dict[str, AgentProcess] = {}
        self._known: dict[str, Agent] = {}
        self._condition: dict[str, str] = {}
        self._crashed: list[AgentProcess] = []
        self._told: set[Callable[[], None]] = set()
        self._repeated = Repeated()

    async def start(self, agent: Agent, start: StartFrom) -> None:
        if agent.name in self._running:
            raise ValueError(f"agent {agent.name} is running already; expected one that is not, or another name for a second agent")
        acting = self._repeated.of(agent) if self._stage.check_pure else agent
        process = self._running[agent.name] = AgentProcess(acting, self._stage, start, self._note_end)
        self._known[agent.name] = agent
        self._condition[agent.name] = "it is running and has not answered"
        try:
            await process.wait_ready()
        except BaseException:
            self._running.pop(agent.name, None)
            self._condition[agent.name] = "it could not start"
            # Raised from here, so it is no crash to be told of later; and whoever stops waiting leaves nothing that runs.
            self._crashed = [other for other in self._crashed if other is not process]
            await process.kill()
            raise

    async def stop(self, name: str) -> None:
        process = self._take(name, "it was stopped")
        await process.stop()
        self.raise_crash()

    async def kill(self, name: str) -> None:
        await self._take(name, "it was killed").kill()

    async def close(self) -> None:
        """Stop all, those that started last first: whoever reads an agent's events outlives nobody for long."""
        for name in reversed(list(self._running)):
            await self._take(name, "it was stopped").stop()

    def subscriptions(self) -> dict[str, list[str]]:
        return {name: [subscription.name for subscription in agent.subscriptions] for name, agent in self._known.items()}

    def condition(self, name: str) -> str:
        return self._condition.get(name, "it is not part of this test")

    def raise_crash(self) -> None:
        """Each crash is raised once, and so is a promise that was not kept."""
        if self._repeated.broken:
            raise NotPure(self._repeated.broken.pop(0))
        if self._crashed:
            process = self._crashed.pop(0)
            failure = process.failure
            raise AgentCrashed(f"agent {process.agent.name} crashed: {type(failure).__name__}: {failure}") from failure

    @contextmanager
    def telling(self, call: Callable[[], None]) -> Iterator[None]:
        """Have it called when there may be more to read, and when an agent crashes."""
        self._told.add(call)
        self._stage.broker.watch(call)
        try:
            yield
        finally:
            self._told.discard(call)
            self._stage.broker.unwatch(call)

    def _take(self, name: str, condition: str) -> AgentProcess:
        process = self._running.pop(name, None)
        if process is None:
            raise ValueError(f"expected an agent that runs, found {name!r}; running: {', '.join(self._running) or 'none'}")
        self._condition[name] = condition
        return process

    def _note_end(self, process: AgentProcess) -> None:
        if process.failure is None:
            return
        self._crashed.append(process)
        name = process.agent.name
        if self._running.get(name) is process:
            del self._running[name]
        self._condition[name] = f"it crashed: {type(process.failure).__name__}: {process.failure}"
        for call in list(self._told):
            call()


def _innermost(error: BaseException) -> BaseException:
    """What really happened, out of the groups that tasks wrap around it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
