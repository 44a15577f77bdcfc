"""Maypole under torture: four agents, two of them acting on the outside, and what they leave behind."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import BrokerUnreachable, TopicPartition
from maypole.bus.runner import topics_of
from maypole.bus.starting_offsets import seed_offsets
from maypole.bus.testing.history_entries import Entry, Published, Witnessed
from maypole.bus.testing.history_reading import read_history
from maypole.settings import Settings
from tests.support.names import unique_agent
from tests.torture.agent import Acted, Started, Ticked, Tocked, agent_of
from tests.torture.crew import Crew, Role, with_effects
from tests.torture.failpoints import POINTS, Failpoint
from tests.torture.run import Faults, Ground, Orders, loading, say, settle, without
from tests.torture.verdict import Verdict, judge
from tests.torture.witness import calls_of


@dataclass(frozen=True, slots=True)
class Part:
    """An agent of the crew: what it does, in how many processes. Several share a ledger in PostgreSQL; one has its own in SQLite."""

    role: str
    instances: int

    @property
    def is_alone(self) -> bool:
        return self.instances == 1


PARTS: Final = {"spreading": Part("spreading", 2), "tocking": Part("tocking", 2), "acting": Part("acting", 3), "alone": Part("acting", 1)}
_RECORDED: Final = tuple(point for point in with_effects() if point not in ("journaled", "publishing"))
"""Where steps with a row die: what they emit leaves beside their journal record, and nothing lies between the two."""
_TOPICS: Final = tuple(event.event_type for event in (Started, Ticked, Tocked, Acted))
_TICKS: Final = 8
POISONED_EVERY: Final = 20 * _TICKS
SUBJECT: Final = "maypole"
_AT_WORK_CALLS: Final = 40
_AT_WORK_SECONDS_MAX: Final = 120.0
_FENCED: Final = "another one has its group.instance.id"


def broken_promises(verdict: Verdict) -> list[str]:
    """The findings that contradict what is promised today; empty for a run that kept every promise."""
    broken = [f"{finding.kind.value}: {finding.agent}: {finding.detail}" for finding in verdict.findings]
    unfinished = [f"{verdict.open} inputs were never finished"] if verdict.open else []
    return broken + unfinished + [f"ended by itself: {failure}" for failure in verdict.toll.failures]


async def torture(ground: Ground, orders: Orders, *, flows_per_second: float, static: Sequence[str]) -> Verdict:
    """`static`: the parts whose instances are static members of a classic group; a killed one's successor follows at once."""
    return await _live_through(Faults(orders, ground.kafka, ground.store).torment, ground, orders, flows_per_second, static, SUBJECT)


async def without_kafka(ground: Ground, seconds: float, orders: Orders, *, flows_per_second: float, static: Sequence[str]) -> Verdict:
    """No agent is killed, but every node of Kafka at once, and nobody answers for so long. Of the orders the seed and the patience."""

    async def torment(crew: Crew) -> None:
        await _at_work(ground)
        await without(ground.kafka, seconds, crew.toll)
        await _at_work(ground)

    return await _live_through(torment, ground, orders, flows_per_second, static, f"{SUBJECT}, {seconds:.0f} s without Kafka")


async def _live_through(
    torment: Callable[[Crew], Awaitable[None]], ground: Ground, orders: Orders, flows_per_second: float, static: Sequence[str], subject: str
) -> Verdict:
    began = time.monotonic()
    names = {part: unique_agent(part) for part in PARTS}
    settings = Settings(home=ground.folder / "home", kafka=ground.kafka.bootstrap)
    async with open_platform(settings) as platform:
        for declaration in platform.catalog.view.active():
            await platform.catalog.retire(declaration["name"])
        starts = await _prepare(platform, names, ground.witness)
        published: list[Published] = []
        roles = [_role(ground, PARTS[part], name, part in static) for part, name in names.items()]
        crew = Crew(roles, ground.folder / "logs", orders.seed, killing=orders.kills_max > 0)
        bus, chance = platform.bus("torture", Untraced()), random.Random(f"{orders.seed}/load")

        async def publish() -> None:
            poisoned = chance.randrange(_TICKS) if chance.randrange(POISONED_EVERY // _TICKS) == 0 else None
            try:
                told = await bus.publish(Started(up_to=_TICKS, poisoned=poisoned))
            except BrokerUnreachable:
                return  # nobody was told that it is there
            if told.offset >= 0:
                published.append(Published(TopicPartition(told.topic, told.partition), told.offset, told.event_id))

        async with crew:
            async with loading(publish, flows_per_second):
                await torment(crew)
            say("  no more faults; waiting until everything has come to rest")
            await crew.calm()
            groups = {name: sorted({at.topic for at in start}) for name, start in starts.items()}
            if not await settle(platform.transport.cluster, groups, orders.settle_seconds):
                say("  it did not come to rest")
        for name in names.values():
            await platform.catalog.retire(name)
        history: list[Entry] = await read_history(platform.transport, starts, _TOPICS)
    witnessed = [Witnessed(name) for part, name in names.items() if PARTS[part].role == "acting"]
    history += [*published, *witnessed, *calls_of(ground.witness)]
    return judge(subject, time.monotonic() - began, crew.toll, history)


async def _at_work(ground: Ground) -> None:
    """Until the agents have acted so many times more."""
    before = len(calls_of(ground.witness))
    async with asyncio.timeout(_AT_WORK_SECONDS_MAX):
        while len(calls_of(ground.witness)) < before + _AT_WORK_CALLS:  # noqa: ASYNC110 - the witness is another process
            await asyncio.sleep(0.1)


async def _prepare(platform: Platform, names: dict[str, str], witness: Path) -> dict[str, dict[TopicPartition, int]]:
    """Every topic, and the place where each agent begins, before any of them lives: they are killed before they could tell."""
    starts = {}
    for part, name in names.items():
        agent = agent_of(PARTS[part].role, name, Failpoint(None, 0), witness)
        await platform.ensure(topics_of(agent))
        topics = [event_type for subscription in agent.subscriptions for event_type in subscription.event_types]
        await seed_offsets(platform.transport.cluster, name, topics, "latest")
        counts = await platform.transport.cluster.topics()
        partitions = [TopicPartition(topic, partition) for topic in topics for partition in range(counts[topic])]
        starts[name] = dict(await platform.transport.cluster.committed(name, partitions))
        # Announced here, so that the first flows already wait for agents that die before they can announce themselves.
        declaration = {**agent.declaration(), "schemas": {}, "temporary": False, "retired": False}
        await platform.catalog.announce(declaration, {})
    return starts


def _role(ground: Ground, part: Part, name: str, static: bool) -> Role:
    def command(number: int, options: Sequence[str]) -> list[str]:
        store = "sqlite" if part.is_alone or ground.store is None else ground.store.address
        words = [ground.kafka.bootstrap, store, str(ground.folder / "home"), part.role, name, str(ground.witness), *options]
        member = ["--member", f"{name}-{number}"] if static else []
        return [sys.executable, "-m", "tests.torture.agent", *words, *member]

    return Role(name, command, _RECORDED if part.role == "acting" else POINTS, part.instances, fenced_saying=_FENCED)
