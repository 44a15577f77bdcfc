"""A journal in memory, coordinators that fold it, and a test that plays all the agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maypole.bus.catalog import View
from maypole.bus.composition import Platform, open_platform
from maypole.bus.journal import JournalRecords
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.faults import Faults
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import VirtualClock, virtual_time
from maypole.bus.ports import Delivery, Record, TopicPartition
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Reader
from maypole.schemas.commands import COMMANDS, StepCommand
from maypole.schemas.envelope import lineage, rfc3339
from maypole.schemas.event import Event
from maypole.schemas.identifiers import FlowId, StepId, new_flow_id, output_event_id, root_event_id, root_traceparent, step_id_of
from maypole.schemas.journal import (
    AbortRequested,
    Effect,
    FlowEnded,
    FlowStarted,
    Produced,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepFenced,
    StepStarted,
)
from maypole.services.coordinator.opening import coordinator_of
from maypole.services.coordinator.service import Coordinator
from maypole.services.coordinator.stores.memory import MemoryStore
from maypole.services.coordinator.stores.port import Store
from maypole.settings import Settings

ROOT = "trip.asked"
AGENTS = {"flight": (ROOT, "flight.booked"), "hotel": ("flight.booked", "hotel.booked"), "car": ("hotel.booked", None)}
"""A chain of three that act and can be undone."""
DIGEST = bytes(32)
_COMMANDS = {form.event_type.encode(): Reader(schema_of(form), form) for form in COMMANDS}
_ENDED = Reader(schema_of(FlowEnded), FlowEnded)
PATIENCE = 60.0
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def declaration(agent: str, on: str, emits: str | None, **more: Any) -> dict[str, Any]:
    return {"name": agent, "subscriptions": [{"on": on, "emits": [emits] if emits else [], "kind": "undo", **more}]}


@dataclass
class Process:
    """One coordinator, with a connection of its own."""

    coordinator: Coordinator
    platform: Platform
    transport: MemoryTransport
    task: asyncio.Task[None]

    async def stop(self) -> None:
        self.coordinator.stop()
        await self.task

    async def kill(self) -> None:
        """At once: nothing more of it reaches anybody."""
        self.transport.kill()
        self.task.cancel()
        await asyncio.wait({self.task})


@dataclass
class World:
    broker: MemoryBroker
    clock: VirtualClock
    platform: Platform
    settings: Settings
    stack: AsyncExitStack
    store: MemoryStore = field(default_factory=MemoryStore)
    hash: str = ""

    async def start(self, store: Store | None = None, *, patience: float = PATIENCE, now: Callable[[], float] | None = None) -> Process:
        """A coordinator that has taken its share, on the one store unless another is given."""
        transport = MemoryTransport(self.broker)
        opened: asyncio.Future[tuple[Coordinator, Platform]] = asyncio.get_running_loop().create_future()

        async def live() -> None:
            async with transport, open_platform(self.settings, transport, now or self.clock.now) as platform:
                coordinator = coordinator_of(platform, store or self.store, patience_seconds=patience)
                opened.set_result((coordinator, platform))
                await coordinator.run()

        task = asyncio.create_task(live())
        everything: list[asyncio.Future[Any]] = [task, opened]
        await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        coordinator, platform = opened.result()
        process = Process(coordinator, platform, transport, task)
        self.stack.push_async_callback(self._put_away, process)
        waiting = asyncio.create_task(coordinator.ready.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()
        return process

    async def announce(self, *declarations: dict[str, Any]) -> str:
        """The hash of the choreography that these make."""
        for each in declarations:
            await self.platform.catalog.announce(each, {})
        return (await self.platform.catalog.pin(ROOT)).hash

    def flow(self, deadline_seconds: float = 3600.0, business_key: str | None = None) -> TestFlow:
        return TestFlow(self, new_flow_id(), int(deadline_seconds * 1000), business_key)

    async def journal(self, flow: FlowId, *bodies: Event, choreography: str | None = None, business_key: str | None = None) -> None:
        records = JournalRecords("/agents/played")
        common = lineage(
            flow_id=flow.encode(), time=rfc3339(self.clock.now() * 1000).encode(), state_version=1,
            choreography=(choreography or self.hash).encode(), business_key=business_key,
        )  # fmt: skip
        for body in bodies:
            about = str(getattr(body, "step_id", flow))
            record = records.record(body, about, flow.encode(), _traceparent(flow, about), None, common)
            await self.platform.sink.publish([record])

    async def append(self, *records: Record) -> None:
        await self.platform.sink.publish(records)

    def topic(self, name: str) -> list[Delivery]:
        found: list[Delivery] = []
        for partition in range(self.broker.topics().get(name, 0)):
            log = self.broker.log(TopicPartition(name, partition))
            found += log.read(log.oldest, 100_000, float("inf"))
        return found

    def commands(self, flow: FlowId | None = None) -> list[tuple[str, StepCommand]]:
        """Every command that was sent, repeated ones too: (agent, command), by agent and order of sending."""
        found = []
        for agent in sorted({name.removesuffix(".commands") for name in self.broker.topics() if name.endswith(".commands")}):
            for record in self.topic(f"{agent}.commands"):
                if flow is None or record.key == flow.encode():
                    headers = dict(record.headers)
                    found.append((agent, _COMMANDS[headers["ce_type"] or b""].decode(record.value or b"")))
        return found

    def asked(self, flow: FlowId) -> list[tuple[str, str]]:
        """(agent, kind) of every command of a flow, each once."""
        return list(dict.fromkeys((agent, command.event_type.removeprefix("maypole.")) for agent, command in self.commands(flow)))

    def ends(self, flow: FlowId) -> list[FlowEnded]:
        """Those that whoever reacts to ends was told."""
        return [_ENDED.decode(record.value or b"") for record in self.topic("maypole.flow.ended") if record.key == flow.encode()]

    async def committed(self, group: str) -> Mapping[TopicPartition, int]:
        return await self.platform.transport.cluster.committed(group, [TopicPartition("maypole.journal", n) for n in range(4)])

    def view(self) -> View:
        return self.platform.catalog.view

    async def settled(self, seconds: float = 0.2) -> None:
        """Virtual time in which everything that reacts to records has done so; timers of minutes have not gone off."""
        await asyncio.sleep(seconds)

    async def until(self, holds: Callable[[], bool], seconds: float = 600.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 - virtual time, and what holds is told by many
                await asyncio.sleep(0.05)

    async def _put_away(self, process: Process) -> None:
        if not process.task.done():
            await process.kill()


def _traceparent(flow: FlowId, about: str) -> str:
    return root_traceparent(flow) if about == flow else f"{root_traceparent(flow)[:36]}{about.replace('-', '')[:16]}-01"


@dataclass
class TestFlow:
    """A flow whose agents the test plays; each step is named by its agent."""

    __test__ = False
    world: World
    id: FlowId
    deadline_ms: int
    business_key: str | None = None

    async def starts(self, choreography: str | None = None) -> TestFlow:
        root = Produced(event_id=root_event_id(self.id, ROOT), type=ROOT, digest=DIGEST)
        pinned = choreography or self.world.hash
        await self.write(FlowStarted(choreography=pinned, deadline_ms=self.deadline_ms, roots=(root,)))
        return self

    def step(self, agent: str) -> StepId:
        on, _ = AGENTS[agent]
        return step_id_of(self.id, agent, on, self._trigger(agent))

    async def begins(self, agent: str) -> None:
        on, _ = AGENTS[agent]
        body = StepStarted(
            step_id=self.step(agent), agent=agent, subscription=on, parents=(), attempt=1, lease_until=datetime(2026, 1, 1, tzinfo=UTC)
        )
        await self.write(body)

    async def completes(self, *agents: str) -> TestFlow:
        for agent in agents:
            on, emits = AGENTS[agent]
            outputs = () if emits is None else (Produced(event_id=output_event_id(self.step(agent), emits, 0), type=emits, digest=DIGEST),)
            await self.write(
                StepCompleted(
                    step_id=self.step(agent), agent=agent, subscription=on, parents=(), effect=Effect.APPLIED, outputs=outputs
                )
            )  # fmt: skip
        return self

    async def fails(self, agent: str, effect: Effect = Effect.NONE) -> TestFlow:
        on, _ = AGENTS[agent]
        await self.write(
            StepFailed(
                step_id=self.step(agent), agent=agent, subscription=on, parents=(), reason="rejected", detail="no", attempts=1,
                effect=effect,
            )
        )  # fmt: skip
        return self

    async def fenced(self, agent: str) -> None:
        await self.write(StepFenced(step_id=self.step(agent)))

    async def undone(self, agent: str) -> None:
        await self.write(StepCompensated(step_id=self.step(agent), command_id="of no interest"))

    async def abort(self) -> None:
        await self.write(AbortRequested(by="somebody", why="no more"))

    async def write(self, *bodies: Event) -> None:
        await self.world.journal(self.id, *bodies, business_key=self.business_key)

    def _trigger(self, agent: str) -> str:
        names = list(AGENTS)
        before = names.index(agent) - 1
        if before < 0:
            return root_event_id(self.id, ROOT)
        return output_event_id(self.step(names[before]), AGENTS[names[before]][1] or "", 0)


@asynccontextmanager
async def open_world(home: Path, faults: Faults | None = None) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        clock = await stack.enter_async_context(virtual_time())
        broker = MemoryBroker(clock.now, faults or Faults())
        settings = Settings(home=home, tracing="off")
        transport = await stack.enter_async_context(MemoryTransport(broker))
        platform = await stack.enter_async_context(open_platform(settings, transport, clock.now))
        inner = await stack.enter_async_context(AsyncExitStack())
        world = World(broker, clock, platform, settings, inner)
        world.hash = await world.announce(*(declaration(agent, on, emits) for agent, (on, emits) in AGENTS.items()))
        yield world
