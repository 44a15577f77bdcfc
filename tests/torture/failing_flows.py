"""Flows that fail on the way while agents, coordinators, brokers and databases are killed, and what became of every one of them."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from maypole.bus.command_loop import command_group
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import BrokerUnreachable
from maypole.bus.runner import topics_of
from maypole.bus.starting_offsets import seed_offsets
from maypole.schemas.identifiers import FlowId
from maypole.schemas.topics import JOURNAL, PLATFORM, commands
from maypole.services.cli.flow_histories import all_flows
from maypole.services.coordinator.naming import COORDINATOR
from maypole.services.operators import request_abort
from maypole.services.saga import Saga, State, outstanding
from maypole.settings import Settings
from tests.torture.crew import Crew, Role, Toll
from tests.torture.effects import CAUSES, Deed, broken_promises, deeds_at, left
from tests.torture.run import Faults, Ground, Orders, loading, say, settle
from tests.torture.saga_agents import AGENTS, WITNESS, Ordered

_NO_DATABASE: Final = "in PostgreSQL at"
_LOOK_SECONDS: Final = 2.0
"""Each look reads the whole journal."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Who is there. Agents that share a process die together. A Ground with a database is shared by all, otherwise all keep files."""

    name: str
    processes: Sequence[str]
    """Of agents: their names, separated by blanks."""
    instances: int
    coordinators: int
    life_seconds_max: float = 20.0


@dataclass(slots=True)
class Ends:
    """What a run came to."""

    arrangement: str
    seconds: float
    toll: Toll
    flows: int
    failing: int
    """Of them those that were fated to fail at a step. Who is cancelled only is not counted: it may come too late."""
    states: Mapping[State, int]
    made: int
    taken_back: int
    left_of_stuck: int
    forgotten: Sequence[FlowId]
    """Published, and the journal says nothing of them, or they came to no end."""
    broken: list[str] = field(default_factory=list)

    @property
    def coordinator_kills(self) -> int:
        return self.toll.kills_of[COORDINATOR]

    @property
    def agent_kills(self) -> int:
        return self.toll.killed - self.coordinator_kills


async def _keep_nothing(platform: Platform) -> None: ...


async def torture(
    ground: Ground,
    orders: Orders,
    arrangement: Arrangement,
    flows: int,
    per_second: float,
    keep: Callable[[Platform], Awaitable[None]] = _keep_nothing,
) -> Ends:
    """Until both the kills that are ordered and so many flows have been reached, and then until everything has come to rest.

    `keep` may take from the platform what it wants before nobody can any more.
    """
    began = time.monotonic()
    settings = Settings(home=ground.folder / "home", tracing="off").at(ground.kafka.bootstrap, "the run")
    async with open_platform(settings) as platform:
        await _prepare(platform)
        load = _Load(platform, flows, random.Random(f"{orders.seed}/flows"))
        faults = Faults(orders, ground.kafka, ground.store)
        async with Crew(_roles(ground, settings, arrangement), ground.folder / "logs", orders.seed) as crew:
            async with loading(load.publish, per_second):
                await faults.torment(crew)
                await load.complete.wait()
            say("  no more faults; waiting until every flow has come to its end")
            await crew.calm()
            await _every_end(platform, load.published, orders.settle_seconds)
            groups = {agent.name: [topic for each in agent.subscriptions for topic in each.event_types] for agent in AGENTS}
            groups |= {command_group(agent.name): [commands(agent.name).name] for agent in AGENTS} | {COORDINATOR: [JOURNAL]}
            if not await settle(platform.transport.cluster, groups, orders.settle_seconds):
                say("  it did not come to rest")
        await keep(platform)
        sagas = await _sagas(platform)
        return _judged(arrangement, time.monotonic() - began, crew.toll, load, sagas, deeds_at(ground.witness))


class _Load:
    """Flows, each told its fate. One that met a broker without an answer is published again, under the same ids."""

    def __init__(self, platform: Platform, flows: int, chance: random.Random) -> None:
        self._platform = platform
        self._bus = platform.bus("sagas", Untraced())
        self._flows = flows
        self._chance = chance
        self._order: Ordered | None = None
        self.published: list[FlowId] = []
        self.failing = 0
        self.complete = asyncio.Event()

    async def publish(self) -> None:
        if self.complete.is_set():
            return
        self._order = self._order or fated(len(self.published), self._chance)
        try:
            flow = (await self._bus.publish(self._order, idempotency_key=str(self._order.number))).flow_id
            if self._order.number % 10 == 9:
                await self._cancel(flow)
        except BrokerUnreachable:
            return
        self.failing += self._order.fails
        self._order = None
        self.published.append(flow)
        if len(self.published) >= self._flows:
            self.complete.set()

    async def _cancel(self, flow: FlowId) -> None:
        """At once, so that it meets steps under way."""
        pinned = Saga(flow, choreography=await self._platform.catalog.pin(Ordered.event_type))
        await request_abort(self._platform, pinned, "the run", "to see what becomes of it")


def fated(number: int, chance: random.Random) -> Ordered:
    """Of six flows two go well, two are refused at a step, two break at a step, one of these where it cannot be taken back."""
    fate, at = chance.choice(("well", "well", "refused", "refused", "broken", "kept")), chance.choice(AGENTS).name
    return Ordered(
        number=number,
        refused_by=at if fate == "refused" else "",
        broken_by=at if fate in ("broken", "kept") else "",
        kept_by=chance.choice(sorted({at, *CAUSES[at]})) if fate == "kept" else "",
    )


async def _prepare(platform: Platform) -> None:
    """Topics, places to begin at and announcements, before any agent lives: they are killed before they could see to them."""
    for declaration in platform.catalog.view.active():
        await platform.catalog.retire(declaration["name"])
    await platform.ensure(PLATFORM)
    for agent in AGENTS:
        await platform.ensure(topics_of(agent))
        topics = [event_type for subscription in agent.subscriptions for event_type in subscription.event_types]
        await seed_offsets(platform.transport.cluster, agent.name, topics, "latest")
        await platform.catalog.announce({**agent.declaration(), "schemas": {}, "temporary": False, "retired": False}, {})


def _roles(ground: Ground, settings: Settings, arrangement: Arrangement) -> list[Role]:
    environment = {
        "MAYPOLE_KAFKA": ground.kafka.bootstrap, "MAYPOLE_HOME": str(settings.home), "MAYPOLE_TRACING": "off", WITNESS: str(ground.witness),
        **({} if ground.store is None else {"MAYPOLE_STORE": ground.store.address}),
    }  # fmt: skip

    def role(name: str, instances: int, *words: str) -> Role:
        command = [sys.executable, "-m", "maypole.services.cli", "-v", *words]
        return Role(name, lambda number, options: command, (), instances, environment, arrangement.life_seconds_max, _NO_DATABASE)

    agents = [
        role(
            process.replace(" ", "-"),
            arrangement.instances,
            "run",
            "--durable",
            *(f"tests/torture/saga_agents.py:{name}" for name in names),
        )
        for process in arrangement.processes
        for names in [process.split()]
    ]
    return [*agents, role(COORDINATOR, arrangement.coordinators, "coordinator")]


def _is_over(saga: Saga) -> bool:
    """A flow that is stuck has branches that go on."""
    return saga.state.is_end or (saga.state is State.STUCK and not list(outstanding(saga)))


async def _every_end(platform: Platform, flows: Sequence[FlowId], patience_seconds: float) -> None:
    """Returns when every flow is over, or nothing has moved for so long."""
    last: object = None
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        try:
            sagas = await _sagas(platform)
        except BrokerUnreachable:
            continue
        if all(flow in sagas and _is_over(sagas[flow]) for flow in flows):
            return
        if sagas != last:
            last, deadline = sagas, time.monotonic() + patience_seconds
        await asyncio.sleep(_LOOK_SECONDS)
    say("  nothing moves any more, and not every flow has ended")


async def _sagas(platform: Platform) -> dict[FlowId, Saga]:
    """Of this run's flows: the cluster may hold those of others. One that was never started might be anybody's, so it is ours."""
    found = (await all_flows(platform)).sagas
    return {flow: saga for flow, saga in found.items() if saga.choreography is None or saga.choreography.root == Ordered.event_type}


def _judged(
    arrangement: Arrangement,
    seconds: float,
    toll: Toll,
    load: _Load,
    sagas: Mapping[FlowId, Saga],
    deeds: Mapping[FlowId, list[Deed]],
) -> Ends:
    broken = [each for flow, saga in sagas.items() for each in broken_promises(saga, deeds.get(flow, []))]
    unheard = [flow for flow in {*load.published, *deeds} if flow not in sagas]
    every = [deed for of_flow in deeds.values() for deed in of_flow]
    return Ends(
        arrangement.name, seconds, toll, len({*load.published, *sagas}), load.failing, Counter(saga.state for saga in sagas.values()),
        made=len({deed.step_id for deed in every if not deed.undone}), taken_back=len({deed.step_id for deed in every if deed.undone}),
        left_of_stuck=sum(len(left(deeds.get(flow, []))) for flow, saga in sagas.items() if saga.state is State.STUCK),
        forgotten=[*unheard, *(flow for flow, saga in sagas.items() if not _is_over(saga))],
        broken=[*broken, *(f"flow {flow}: forgotten" for flow in unheard), *(f"ended by itself: {each}" for each in toll.failures)],
    )  # fmt: skip


def notes(ends: Ends, each: int = 10) -> str:
    """For whoever watches, and for whoever has to find out why."""
    states = ", ".join(f"{state} {count}" for state, count in sorted(ends.states.items()))
    toll = f"{ends.agent_kills} kills of agents, {ends.coordinator_kills} of coordinators, {ends.toll.broker_kills} of brokers"
    lines = [f"{ends.arrangement}: {ends.flows} flows, of which {ends.failing} fail, in {ends.seconds:.0f} s under {toll}: {states}"]
    return "\n".join([*lines, f"  {ends.made} effects made, {ends.taken_back} taken back", *(f"  {found}" for found in ends.broken[:each])])
