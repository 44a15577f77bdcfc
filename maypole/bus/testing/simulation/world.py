"""The world of one simulated run: agents that are killed, stopped and started again, on a broker and ledgers that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from maypole.bus.agent import Agent
from maypole.bus.bus import Bus
from maypole.bus.hook import Untraced
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.ports import BrokerUnreachable, PublishRefused, TopicPartition
from maypole.bus.testing.flow import Flow
from maypole.bus.testing.history_entries import Pinned
from maypole.bus.testing.records import Topics
from maypole.bus.testing.simulation.accidents import trouble
from maypole.bus.testing.simulation.agent_life import AgentLife
from maypole.bus.testing.simulation.coordinator_life import CoordinatorLife
from maypole.bus.testing.simulation.instance import Begin, Instance
from maypole.bus.testing.simulation.probes import Outside, Probe
from maypole.bus.testing.simulation.stage import Stage
from maypole.bus.testing.simulation.verdict import bereft, findings, history, is_quiet
from maypole.schemas.event import Event
from maypole.services.coordinator.naming import COORDINATOR
from maypole.services.coordinator.stores.memory import MemoryStore

_PUBLISHER: Final = "simulation"
_START_SECONDS_MAX: Final = 60.0
_TROUBLE_SECONDS: Final = 60.0
"""Nothing goes wrong any more so long after the scenario has ended, so that whatever has to be waited for is waited for."""
_LOOK_SECONDS: Final = 1.0
_QUIET_SECONDS_MIN: Final = 300.0
_DELAYS_WAITED: Final = 10
_AFTERWARDS_SECONDS: Final = 20.0
"""What comes so long after everything has come to rest still counts: a zombie may be late."""
_INSTANCES: Final = 2
_BURIALS_MAX: Final = 20


class World:
    """What a scenario gets. Time is virtual: `asyncio.sleep` costs nothing."""

    def __init__(self, stage: Stage, agents: Sequence[Agent], outside: Outside, kept: MemoryStore | None) -> None:
        """`kept` is what coordinators keep; None: there is no coordinator."""
        self._stage = stage
        self._agents = agents
        self._coordinated = kept is not None
        self._outside = outside
        self._probe = Probe(stage.now, stage.story)
        self._topics = Topics(stage.broker)
        self._published = 0
        self._bus: Bus | None = None
        self.flows: list[Flow] = []
        self._restless: list[Flow] = []
        programs: list[tuple[str, Begin]] = [(agent.name, partial(AgentLife, stage, agent, self._probe)) for agent in agents]
        if kept is not None:
            programs.append((COORDINATOR, partial(CoordinatorLife, stage, kept)))
        numbers = range(1, (_INSTANCES if stage.shared else 1) + 1)
        self._instances = [Instance(stage, program, number, begin) for program, begin in programs for number in numbers]
        for agent in agents:
            self._topics.declare(agent)

    async def publish(self, event: Event, *, business_key: str | None = None, idempotency_key: str | None = None) -> Flow:
        """Start a flow; waits until the broker has it, however often that takes a repetition under the same key."""
        assert self._bus is not None
        self._published += 1
        key = f"{_PUBLISHER}-{self._published}" if idempotency_key is None else idempotency_key
        while True:
            try:
                published = await self._bus.publish(event, business_key=business_key, idempotency_key=key)
            except (PublishRefused, BrokerUnreachable):
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                self._topics.declare_root(type(event))
                self._stage.story.tell(f"flow {published.flow_id} is published: {event!r}")
                flow = Flow(published, self._topics, self, coordinated=self._coordinated)
                self.flows.append(flow)
                self._restless.append(flow)
                return flow

    def now(self) -> float:
        """Virtual seconds since the epoch. It begins on 2026-01-01."""
        return self._stage.now()

    @property
    def steps(self) -> int:
        """Taken by all processes."""
        return sum(process.steps for instance in self._instances for process, _ in instance.lived)

    async def run(
        self, scenario: Callable[[World], object], witnessed: Collection[str], expect: Callable[[World], object] | None
    ) -> list[str]:
        """Everything from the first start to the last look; returns what is to be found fault with."""
        stage = self._stage
        async with MemoryTransport(stage.broker) as transport, stage.platform(transport) as platform:
            self._bus = platform.bus(_PUBLISHER, Untraced())
            for instance in self._instances:
                instance.start()
            await self._looked_at(lambda: all(instance.ready for instance in self._instances), _START_SECONDS_MAX)
            stage.chance.calm = False
            for instance in self._instances:
                instance.tempt()
            troubling = asyncio.create_task(trouble(stage, self._agents, self._instances))
            try:
                told = scenario(self)
                if asyncio.iscoroutine(told):
                    await told
                if not self.flows and not self._anything_written():
                    raise ValueError("expected a scenario that publishes something, found one after which there is nothing to judge")
                await self._looked_at(self._at_rest, _TROUBLE_SECONDS)
            finally:
                troubling.cancel()
            self._calm_down()
            quiet = await self._looked_at(lambda: self._at_rest() and is_quiet(stage.broker, self._agents), self._patience_seconds)
            stage.story.tell("everything is quiet" if quiet else "it does not become quiet")
            await asyncio.sleep(_AFTERWARDS_SECONDS)
            entries = history(stage.broker, self.flows, self._instances, self._outside, self._probe, witnessed)
            found = [*findings(entries, self._whole(), self._instances), *self._disappointed(expect)]
            stage.story.mark(repr(sorted(repr(entry) for entry in entries if not isinstance(entry, Pinned))))
        await self._bury()
        return found

    # What flows ask of those who act in them.

    def subscriptions(self) -> dict[str, list[str]]:
        return {each.name: [topic for subscription in each.subscriptions for topic in subscription.event_types] for each in self._agents}

    def condition(self, name: str) -> str:
        found = [f"{each.process.name} is {each.process.condition.value}" for each in self._instances if each.program == name]
        return ", ".join(found) or "it is not part of this simulation"

    def raise_crash(self) -> None:
        """Nobody's end is a surprise here."""

    @contextmanager
    def telling(self, call: Callable[[], None]) -> Iterator[None]:
        self._stage.broker.watch(call)
        try:
            yield
        finally:
            self._stage.broker.unwatch(call)

    def _disappointed(self, expect: Callable[[World], object] | None) -> list[str]:
        try:
            if expect is not None:
                expect(self)
        except AssertionError as error:
            return [f"not as expected: {error}"]
        return []

    def _anything_written(self) -> bool:
        broker = self._stage.broker
        counts = broker.topics()
        return any(broker.log(TopicPartition(topic, at)).end for topic in self._topics.events() for at in range(counts[topic]))

    def _at_rest(self) -> bool:
        """What has come to rest stays so."""
        while self._restless and (self._restless[-1].at_rest or self._restless[-1].flow_id in self._bereft()):
            self._restless.pop()
        return not self._restless

    def _bereft(self) -> frozenset[str]:
        return bereft(self._stage.broker, self._instances)

    def _whole(self) -> list[Flow]:
        return [flow for flow in self.flows if flow.flow_id not in self._bereft()]

    @property
    def _patience_seconds(self) -> float:
        """How long everything may take to come to rest: the leases of the dead, and the longest delay, time and again."""
        lease = max(subscription.timeout_seconds for agent in self._agents for subscription in agent.subscriptions)
        delay = max(delay for agent in self._agents for delay in agent.retry_delays)
        return _QUIET_SECONDS_MIN + 2 * lease + _DELAYS_WAITED * delay

    async def _looked_at(self, good: Callable[[], bool], seconds: float) -> bool:
        until = self._stage.loop.time() + seconds
        while not good():
            if self._stage.loop.time() >= until:
                return False
            await asyncio.sleep(_LOOK_SECONDS)  # virtual: looking costs less than being told
        return True

    def _calm_down(self) -> None:
        """From here on nothing goes wrong, and what had stopped goes on."""
        stage = self._stage
        stage.story.tell("nothing goes wrong any more")
        stage.chance.calm = True
        stage.broker.come_back()
        for instance in self._instances:
            instance.process.spare()
            instance.go_on(instance.process)

    async def _bury(self) -> None:
        """Also what the dying begin while they are buried."""
        for _ in range(_BURIALS_MAX):
            tasks = [task for instance in self._instances for task in instance.bury()]
            if not tasks:
                return
            await asyncio.wait(tasks, timeout=_LOOK_SECONDS)
        raise RuntimeError(f"{len(tasks)} tasks of dead processes do not end: {tasks[:3]}")
