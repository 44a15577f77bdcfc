"""The world of a test: agents on a broker in memory, in virtual time."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType

from maypole.bus.agent import Agent
from maypole.bus.bus import Bus
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.faults import Faults
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import VirtualClock, virtual_time
from maypole.bus.starting_offsets import StartFrom
from maypole.bus.stores.memory import MemoryStores
from maypole.bus.testing.flow import Flow
from maypole.bus.testing.process import Cast, Stage
from maypole.bus.testing.records import DeadLetter, Topics
from maypole.schemas.event import Event
from maypole.settings import Settings

PUBLISHER = "test"


class Choreography:
    """`async with Choreography([research, analysis]) as world:` starts the agents and waits until they are announced.

    Inside the block the loop's time is virtual: it stands still while anything works and jumps when everything waits.
    `await asyncio.sleep(3600)` in a test or a handler ends at once, and afterwards an hour has passed. A plain function
    as handler runs in a thread, and what it waits for there (`time.sleep`, a request) really takes its time; its
    `timeout_seconds` are virtual and do not pass meanwhile.

    The same program takes the same steps in every run, as far as its handlers do: flows get the same ids, and `seed`
    decides the pauses between attempts. `faults` has what can go wrong on the broker. `home` is an empty folder under
    which agents keep their state; by default a temporary one, which is removed at the end.

    `coordinator`: whether a coordinator runs beside them, as in production; by default it does where one of the agents can
    undo something. What a failed flow did is undone then, and `finished` waits for the flow's end, or until it is stuck.

    `check_pure`: every handler of a `pure=True` step is called twice, and one that does not emit the same raises `NotPure`
    where the test waits for a flow, or at the end.

    Leaving the block stops the agents as in production. An agent that crashed without any `finished` to tell of it
    raises `AgentCrashed` there. What is wrong with an agent's declaration is raised where the agent is started.
    """

    def __init__(
        self,
        agents: Iterable[Agent] = (),
        *,
        seed: int = 0,
        home: Path | None = None,
        faults: Faults | None = None,
        coordinator: bool | None = None,
        check_pure: bool = False,
    ) -> None:
        self._agents = tuple(agents)
        for agent in self._agents:
            _check(agent)
        self._coordinated = any(each.undo for agent in self._agents for each in agent.subscriptions) if coordinator is None else coordinator
        self._check_pure = check_pure
        self._seed = seed
        self._home = home
        self._stack = AsyncExitStack()
        self._published = 0
        self.faults = faults or Faults()
        """May be changed at any time: `world.faults.refuse = lambda record: "disk full"`."""

    async def __aenter__(self) -> Choreography:
        try:
            await self._open()
            for agent in self._agents:
                await self.start(agent)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()
        if error is None:
            self._cast.raise_crash()

    async def publish(
        self, event: Event, *, business_key: str | None = None, idempotency_key: str | None = None, deadline_seconds: float | None = None
    ) -> Flow:
        """Start a flow, as `Bus.publish` does. Without an `idempotency_key` every call starts another flow."""
        self._cast.raise_crash()
        self._published += 1
        # A random flow would lie on another partition in every run.
        key = f"{PUBLISHER}-{self._published}" if idempotency_key is None else idempotency_key
        published = await self._bus.publish(event, business_key=business_key, idempotency_key=key, deadline_seconds=deadline_seconds)
        self._topics.declare_root(type(event))
        return Flow(published, self._topics, self._cast, coordinated=self._coordinated)

    async def start(self, agent: Agent, *, start: StartFrom = "latest") -> None:
        """Start an agent, also one that ran before: it goes on where it stopped. Raises `WrongDeclaration`, and ValueError when it runs."""
        _check(agent)
        await self._cast.start(agent, start)
        self._topics.declare(agent)

    async def stop(self, agent: Agent | str) -> None:
        """Stop an agent as a deployment does: what it fetched is finished first. Flows wait for it until it is started again."""
        await self._cast.stop(_name(agent))

    async def retire(self, agent: Agent | str) -> None:
        """Stop an agent for good: flows that start from now on do not wait for it."""
        await self.stop(agent)
        await self._platform.catalog.refresh()
        await self._platform.catalog.retire(_name(agent))

    async def kill(self, agent: Agent | str) -> None:
        """Kill an agent as `kill -9` does: nothing more is written, what it had in hand is repeated once it is started again."""
        await self._cast.kill(_name(agent))

    def dead_letters(self, agent: Agent | str) -> tuple[DeadLetter, ...]:
        """Everything that an agent gave up until now, also what belongs to no flow."""
        return tuple(self._topics.dead_letters(_name(agent)))

    def now(self) -> float:
        """Virtual seconds since the epoch. It begins on 2026-01-01."""
        return self._clock.now()

    @property
    def broker(self) -> MemoryBroker:
        """For what no other method does: `go_away`, `come_back`, records written by hand."""
        return self._broker

    async def _open(self) -> None:
        enter = self._stack.enter_async_context
        home = self._home or Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="maypole-")))
        self._clock: VirtualClock = await enter(virtual_time())
        self._broker = MemoryBroker(self._clock.now, self.faults)
        self._topics = Topics(self._broker)
        settings = Settings(home=home, tracing="off")
        transport = await enter(MemoryTransport(self._broker))
        self._platform: Platform = await enter(open_platform(settings, transport, self._clock.now))
        self._bus: Bus = self._platform.bus(PUBLISHER, Untraced())
        self._cast = Cast(Stage(self._broker, settings, self._clock.now, self._seed, MemoryStores(self._clock.now), self._check_pure))
        if self._coordinated:
            await self._coordinate(settings)
        self._stack.push_async_callback(self._cast.close)

    async def _coordinate(self, settings: Settings) -> None:
        """It outlives the agents, so that what they say last is heard."""
        from maypole.services.coordinator.opening import coordinator_of
        from maypole.services.coordinator.stores.memory import MemoryStore

        transport = await self._stack.enter_async_context(MemoryTransport(self._broker))
        platform = await self._stack.enter_async_context(open_platform(settings, transport, self._clock.now))
        coordinator = coordinator_of(platform, MemoryStore())
        task = asyncio.create_task(coordinator.run(), name="coordinator")

        async def end() -> None:
            coordinator.stop()
            await task

        self._stack.push_async_callback(end)


def _check(agent: object) -> None:
    if not isinstance(agent, Agent):
        raise TypeError(f"expected an Agent, found {agent!r}; import the agent itself: from my_agents.research import research")


def _name(agent: Agent | str) -> str:
    return agent if isinstance(agent, str) else agent.name
