"""One agent as a member of its consumer group: start, announce, deliver, stop, each a written sequence."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from maypole.bus.admission import Admission
from maypole.bus.agent import Agent
from maypole.bus.backlog import backlog_of
from maypole.bus.backoff import Backoff
from maypole.bus.bus import EnsureTopics
from maypole.bus.catalog import HEARTBEAT_SECONDS, Catalog
from maypole.bus.choreography import types_in
from maypole.bus.command_lane import CommandLane, open_command_lane
from maypole.bus.command_loop import command_group
from maypole.bus.conclusion import Conclusion, open_forms
from maypole.bus.contracts import Contracts, announced_schemas
from maypole.bus.delivery_loop import DeliveryLoop
from maypole.bus.flow_starts import FlowStarts
from maypole.bus.gathering import Gathering
from maypole.bus.guarding import Guarding
from maypole.bus.hook import Tracing
from maypole.bus.instance import instance_id
from maypole.bus.journal import JournalRecords
from maypole.bus.ledger.port import Ledger
from maypole.bus.membership import JournalStart, Memberships
from maypole.bus.partition_counts import partition_counts
from maypole.bus.patience import Patience
from maypole.bus.ports import Sink, Transport
from maypole.bus.publisher import Outlets, open_outlets
from maypole.bus.record_sizes import input_bytes_max, record_bytes_max, value_bytes_max
from maypole.bus.recording import Recording
from maypole.bus.start_checks import check_against_others, check_partitions, check_with_others
from maypole.bus.starting_offsets import StartFrom, seed_offsets
from maypole.bus.steps import Steps
from maypole.bus.subscription import by_topic
from maypole.schemas.envelope import Envelope, lineage, rfc3339
from maypole.schemas.event import Event
from maypole.schemas.journal import FlowStarted
from maypole.schemas.topics import (
    ADDED_BYTES_MAX,
    JOURNAL,
    LETTER_BYTES_MAX,
    PLATFORM,
    Topic,
    command_topic,
    dead_letter_topic,
    dead_letters,
    event_topic,
    own_topics,
    retry_delay,
)

log = logging.getLogger("maypole.bus.runner")

DRAIN_SECONDS_DEFAULT: Final = 30.0
_JOIN_SECONDS: Final = 15.0
_FAREWELL_SECONDS: Final = 3.0
"""Two records; a broker that is there takes them in milliseconds."""

T = TypeVar("T")
OpenLedger = Callable[[str, str], AbstractAsyncContextManager[Ledger]]
"""(agent, instance) to the ledger that the agent's instances share."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an agent runs in: everything concrete, chosen by whoever composes the process."""

    transport: Transport
    sink: Sink
    catalog: Catalog
    contracts: Contracts
    starts: FlowStarts
    tracing: Tracing
    home: Path
    now: Callable[[], float]
    backoff: Backoff
    ensure: EnsureTopics
    ledgers: OpenLedger
    ledger_of_one: str | None = None
    """Where the ledger lies that one instance of an agent keeps for itself; None where all of them share one."""
    instance: str = field(default_factory=instance_id)


class AgentRunner:
    """Runs one agent until `stop` is called or something fails that delivery cannot survive."""

    def __init__(
        self,
        agent: Agent,
        surroundings: Surroundings,
        *,
        start: StartFrom = "latest",
        temporary: bool = False,
        drain_seconds: float = DRAIN_SECONDS_DEFAULT,
    ) -> None:
        """`temporary`: the agent retires when it stops, so that later flows do not wait for it."""
        self.agent = agent
        self._in = surroundings
        self._start = start
        self._temporary = temporary
        self._drain_seconds = drain_seconds
        self._stopping = asyncio.Event()
        self.ready = asyncio.Event()
        """Set once the agent is announced: flows that start from now on wait for it."""

    def stop(self) -> None:
        """Begin to stop: what was fetched is finished first."""
        self._stopping.set()

    async def run(self, beside: Sequence[Agent] = ()) -> None:
        """Raises `WrongDeclaration` before anything is consumed when the agent's declaration cannot work here.

        `beside`: the agents that start together with this one.
        """
        agent, around = self.agent, self._in
        declaration, schemas = self._declaration(agent.event_classes())
        async with (
            around.ledgers(agent.name, around.instance) as ledger,
            open_outlets(around.transport, around.sink, observed=around.tracing.observes) as outlets,
        ):
            await self._run(ledger, outlets, partial(self._announced, declaration, schemas, beside))

    async def _run(self, ledger: Ledger, outlets: Outlets, announced: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        agent, around = self.agent, self._in
        prepared = await self._unless_stopped(self._prepare(ledger, outlets))
        if prepared is None:
            return
        loop, steps, topics, lane = prepared
        async with (
            around.transport.source(agent.name, topics, loop) as source,
            around.transport.source(command_group(agent.name), [command_topic(agent.name)], lane.loop) as commands,
        ):
            delivering = asyncio.create_task(
                _side_by_side(partial(loop.run, source), partial(lane.loop.run, commands)), name=f"{agent.name} deliveries"
            )
            try:
                # Announced only once it has joined: an agent that flows wait for must already have its place in every topic.
                joined = await self._unless_stopped(self._joined(loop), delivering)
                if joined and await self._unless_stopped(announced(), delivering):
                    log.info("agent.ready", extra={"agent": agent.name, "instance": around.instance})
                    self.ready.set()
                    await self._unless_stopped(self._beat(loop, steps), delivering)
                log.info("agent.stopping", extra={"agent": agent.name, "drain_seconds": self._drain_seconds})
                waiting = steps.guarding.waiting
                # 1. Fetch no more, finish what was fetched, commit it. 2. Stop the workers; what they had in hand is repeated.
                await self._drained(loop, lane, delivering)
                if waiting:
                    left = {"agent": agent.name, "records": waiting, "why": "its breakers are open"}
                    log.warning("agent.left_waiting", extra={**left, "then": "nothing is lost: they are handled when it runs again"})
            finally:
                delivering.cancel()
                await asyncio.gather(delivering, return_exceptions=True)
                steps.threads.close()
                lane.threads.close()
            # 3. Leaving the source commits what is left, then leaves the group, so that others take over at once.
        await self._say_farewell()
        if steps.threads.abandoned:
            log.warning("agent.threads_abandoned", extra={"agent": agent.name, "threads": steps.threads.abandoned})
        log.info("agent.stopped", extra={"agent": agent.name, "handled": loop.handled})

    async def _say_farewell(self) -> None:
        """Nobody who stops waits for a broker that may never come back: who is not heard of for a while counts as gone."""
        agent, around = self.agent, self._in
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                others = around.catalog.view.alive(agent.name, around.now()) - {around.instance}
                others = {other for other in others if not self._has_died(other)}
                if self._temporary and not others and agent.name in around.catalog.view.agents:
                    await around.catalog.retire(agent.name)
                await around.catalog.beat(agent.name, around.instance, None)
        except TimeoutError:
            log.warning("agent.farewell_unheard", extra={"agent": agent.name, "instance": around.instance, "seconds": _FAREWELL_SECONDS})

    def _warn_of_other_ledgers(self) -> None:
        """Not refused: a host that is gone for good is heard of for a while, too."""
        agent, around = self.agent, self._in
        for other in sorted(around.catalog.view.alive(agent.name, around.now()) - {around.instance}):
            theirs = around.catalog.view.instances[agent.name, other].get("ledger")
            if theirs is not None and theirs != around.ledger_of_one and not self._has_died(other):
                log.warning(
                    "agent.ledger_elsewhere",
                    extra={
                        "agent": agent.name, "other": other, "its_ledger": theirs, "why": "what one of two ledgers knows the other repeats",
                        "then": "end one of the two, or give all instances one: MAYPOLE_STORE=postgresql://...",
                    },
                )  # fmt: skip

    def _has_died(self, instance: str) -> bool:
        """Known of a process on this machine only; of others, silence tells after a while."""
        facts = self._in.catalog.view.instances.get((self.agent.name, instance), {})
        return facts.get("host") == socket.gethostname() and not _runs(facts.get("pid"))

    async def _prepare(self, ledger: Ledger, outlets: Outlets) -> tuple[DeliveryLoop, Steps, list[str], CommandLane]:
        """Everything that must hold before the group is joined."""
        agent, around = self.agent, self._in
        check_against_others(agent, around.catalog.view)
        topics = list(by_topic(agent.subscriptions))
        limits = await self._ensure_topics(topics)
        letter_bytes_max = min(limits.get(dead_letter_topic(agent.name), LETTER_BYTES_MAX), LETTER_BYTES_MAX)
        sizes = value_bytes_max(limits, {JOURNAL, *agent.event_classes()})
        forms = await open_forms(agent.name, agent.subscriptions, around.contracts, sizes)
        check_partitions(agent, await partition_counts(around.transport.cluster, topics))
        await seed_offsets(around.transport.cluster, agent.name, topics, self._start, self._read_before())
        # Also those of delays that were declared once: something may wait there still. They are read from their oldest record.
        there = await around.transport.cluster.topics()
        delays = {topic: delay for topic in there if (delay := retry_delay(agent.name, topic)) is not None}
        memberships = Memberships(agent.name, around.catalog, around.starts, self._adoption())
        home = around.home / "agents" / agent.name
        home.mkdir(parents=True, exist_ok=True)
        patiently = Patience(agent.name, around.backoff)
        admission = Admission(agent.name, agent.subscriptions, around.contracts, memberships, patiently)
        conclusion = Conclusion(agent.name, forms, around.now, sizes[JOURNAL], letter_bytes_max)
        retention_ms = await self._retention_ms(topics)
        backlog = await backlog_of(agent.name, around.transport.cluster, command_group(agent.name), command_topic(agent.name))
        recording = Recording(
            agent.name, agent.subscriptions, ledger, around.sink, around.now, around.backoff, agent.retry_delays, retention_ms,
            backlog.wait,
        )  # fmt: skip
        gathering = Gathering(agent.name, agent.subscriptions, ledger, patiently, admission, around.sink, around.now)
        guarding = Guarding(agent.name, agent.subscriptions, agent.dependencies, around.now)
        steps = Steps(
            agent.name, agent.subscriptions, admission, conclusion, around.tracing, around.now, around.backoff, home, recording,
            gathering, guarding,
        )  # fmt: skip
        loop = DeliveryLoop(agent.name, steps, outlets, agent.concurrency, delays=delays, now=around.now)
        lane = await open_command_lane(
            agent, around, ledger, recording, loop, home, backlog, guarding.undo_dependency_moved, letter_bytes_max
        )
        return loop, steps, [*topics, *delays], lane

    async def _ensure_topics(self, inputs: Sequence[str]) -> Mapping[str, int]:
        """Create what is missing; how large a record may be on each topic, as far as the broker tells."""
        agent, around, cluster = self.agent, self._in, self._in.transport.cluster
        there = (await cluster.topics()).keys()
        own = {topic.name for topic in topics_of(agent) if topic.record_bytes_max is not None}
        limits = dict(await record_bytes_max(cluster, {JOURNAL, *inputs, *agent.event_classes(), *own} & there))
        largest, usual = input_bytes_max(limits, inputs), limits.get(JOURNAL)
        wanted = topics_of(agent, largest)
        await around.ensure(wanted)
        for topic in wanted:
            wants, has = topic.record_bytes_max, limits.get(topic.name)
            if topic.name not in there and usual is not None:
                limits[topic.name] = wants or usual  # not every broker has heard yet of a topic that was just made
            elif wants is not None and has is not None and has < min(wants, largest + ADDED_BYTES_MAX):
                what = {"agent": agent.name, "topic": topic.name, "bytes_max": has, "expected": wants}
                why = "the largest records of its inputs do not fit: dead letters go without their values, retries not at all"
                mend = f"kafka-configs.sh --alter --topic {topic.name} --add-config max.message.bytes={wants}, then start the agent again"
                log.warning("agent.topic_too_small", extra={**what, "why": why, "try": mend})
        return limits

    async def _retention_ms(self, topics: Sequence[str]) -> int | None:
        """How long a step's event may still come again: as long as its topic keeps it, the longest wait for its next attempt, and its
        dead letter after that. None: for ever."""
        kept = [event_topic(topic).retention_ms for topic in topics]
        for topic in topics:
            told = (await self._in.transport.cluster.topic_config(topic)).get("retention.ms")
            kept += [] if told is None else [int(told)]
        if min(kept) < 0:
            return None
        return max(kept) + int(max(self.agent.retry_delays) * 1000) + dead_letters(self.agent.name).retention_ms

    def _adoption(self) -> JournalStart:
        around, records = self._in, JournalRecords(f"/agents/{self.agent.name}")

        async def journal_start(envelope: Envelope, started: FlowStarted) -> None:
            # Whoever adopts a foreign flow also makes the root of its trace.
            root = around.tracing.started(envelope.flow_id, envelope.type, envelope.business_key, envelope.traceparent)
            flow = envelope.flow_id.encode()
            common = lineage(
                flow_id=flow,
                time=rfc3339(around.now() * 1000).encode(),
                state_version=1,
                choreography=started.choreography.encode(),
                business_key=envelope.business_key,
            )
            record = records.record(started, envelope.flow_id, flow, root.traceparent, root.tracestate, common)
            await around.sink.publish([record])

        return journal_start

    async def _joined(self, loop: DeliveryLoop) -> bool:
        """A member for whom no partition is left is told nothing; after a while it counts as joined all the same."""
        try:
            async with asyncio.timeout(_JOIN_SECONDS):
                await loop.wait_assigned()
        except TimeoutError:
            log.info("agent.without_partitions", extra={"agent": self.agent.name, "instance": self._in.instance})
        return True

    async def _announced(self, declaration: Mapping[str, Any], schemas: Mapping[int, str], beside: Sequence[Agent]) -> bool:
        async with self._in.catalog.announcing:
            # Whoever was announced meanwhile, in this process or another, may contradict us.
            await self._in.catalog.refresh()
            check_against_others(self.agent, self._in.catalog.view)
            check_with_others(declaration, self._in.catalog.view, [each.declaration() for each in beside])
            self._warn_of_other_ledgers()
            await self._in.catalog.announce(declaration, schemas)
        return True

    async def _drained(self, loop: DeliveryLoop, lane: CommandLane, delivering: asyncio.Task[None]) -> None:
        seconds = self._drain_seconds
        draining = asyncio.create_task(_side_by_side(partial(loop.drain, seconds), partial(lane.loop.drain, seconds)))
        try:
            await asyncio.wait({draining, delivering}, return_when=asyncio.FIRST_COMPLETED)
            if delivering.done():
                delivering.result()
        finally:
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)

    async def _unless_stopped(self, side: Coroutine[Any, Any, T], delivering: asyncio.Task[None] | None = None) -> T | None:
        """What `side` answers; None when the order to stop came first. A failure of either is raised."""
        waiting = asyncio.create_task(side)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({waiting, stopping} | ({delivering} if delivering else set()), return_when=asyncio.FIRST_COMPLETED)
            if delivering is not None and delivering.done():
                delivering.result()
            return waiting.result() if waiting.done() else None
        finally:
            for task in (waiting, stopping):
                task.cancel()
            await asyncio.gather(waiting, stopping, return_exceptions=True)

    async def _beat(self, loop: DeliveryLoop, steps: Steps) -> None:
        """Says that it lives, now and then, and at once what became of a breaker."""
        facts = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": self.agent.version,
            "started_at": rfc3339(self._in.now() * 1000),
        }
        if self._in.ledger_of_one is not None:
            facts["ledger"] = self._in.ledger_of_one
        while True:
            steps.guarding.moved.clear()
            counts = {"handled": loop.handled, "dead_lettered": {reason.value: n for reason, n in sorted(steps.dead_lettered.items())}}
            for name, counter in (("late_parts", steps.late_parts), ("told_again", steps.told_again)):
                if counter.total():
                    counts[name] = dict(sorted(counter.items()))
            counts["expired"] = self._in.transport.expired_records.get(self.agent.name, 0)
            now = {"seen_at": rfc3339(self._in.now() * 1000), "breakers": steps.guarding.standing()}
            await self._in.catalog.beat(self.agent.name, self._in.instance, {**facts, **counts, **now})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(steps.guarding.moved.wait(), HEARTBEAT_SECONDS)

    def _read_before(self) -> frozenset[str]:
        """Topics of which flows expect that this agent reads them: nothing that came while it was away may be passed over."""
        known = self._in.catalog.view.agents.get(self.agent.name, {})
        if known.get("retired"):
            return frozenset()
        return frozenset(topic for subscription in known.get("subscriptions", ()) for topic in types_in(subscription["on"]))

    def _declaration(self, classes: Mapping[str, type[Event]]) -> tuple[Mapping[str, Any], Mapping[int, str]]:
        ids, schemas = announced_schemas(classes.values())
        declaration = {**self.agent.declaration(), "schemas": ids, "temporary": self._temporary, "retired": False}
        return declaration, schemas


def _runs(pid: object) -> bool:
    if not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def topics_of(agent: Agent, input_bytes_max: int = 0) -> list[Topic]:
    """Everything an agent reads from or writes to, beside the platform's own; `input_bytes_max` as in `dead_letters`."""
    types = by_topic(agent.subscriptions).keys() | set(agent.event_classes())
    own = {topic.name for topic in PLATFORM}
    return [*(event_topic(name) for name in sorted(types - own)), *own_topics(agent.name, agent.retry_delays, input_bytes_max)]


async def _side_by_side(*sides: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """The first failure stops the others and is raised. Nothing of them exists where this is cancelled before it begins."""
    async with asyncio.TaskGroup() as group:
        for side in sides:
            group.create_task(side())


async def run_agents(runners: list[AgentRunner]) -> None:
    """Run several agents side by side; the first failure stops them all and is raised."""
    async with asyncio.TaskGroup() as group:
        for runner in runners:
            group.create_task(runner.run([each.agent for each in runners]), name=runner.agent.name)


@contextlib.contextmanager
def stopping_on(runners: list[AgentRunner], *signals: int) -> Any:
    """The first signal drains; the second one, of whichever kind, ends the process at once, with 128 and its number."""
    loop = asyncio.get_running_loop()
    asked = False

    def stop(number: int) -> None:
        nonlocal asked
        if asked:
            # Nothing is lost: what was not committed is delivered again.
            os._exit(128 + number)
        asked = True
        for runner in runners:
            runner.stop()

    for number in signals:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
