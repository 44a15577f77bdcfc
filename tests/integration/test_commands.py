"""Commands on a real broker, to processes that die and to instances that know nothing of each other but the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from deploy.local.postgres import Postgres
from maypole.bus import Agent, Context, Reject
from maypole.bus.bus import Published
from maypole.bus.command_loop import command_group
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import Assignment, Delivery, TopicPartition
from maypole.schemas.commands import Compensate, Fence, StepCommand
from maypole.schemas.event import Event
from maypole.schemas.identifiers import StepId, step_id_of
from maypole.schemas.journal import CompensationFailed, FlowStarted, StepAbandoned, StepCompensated, StepCompleted, StepStarted
from maypole.schemas.topics import command_topic, event_topic
from maypole.services.cli.coordinating import coordinating
from maypole.services.saga import State, unsettled
from maypole.settings import Settings
from tests.integration.test_crashes import end, start
from tests.support.agent_process import Ticked, Tocked, undoing
from tests.support.commanding import command_record
from tests.support.names import unique_agent
from tests.support.world import eventually, journal_of, letters, read_topic, running, state_of

R = TypeVar("R", bound=Event)


@dataclass(frozen=True, slots=True)
class Commanding:
    """What a coordinator would tell one agent about the step that a flow's root triggers there."""

    platform: Platform
    agent: str
    root: Published

    @property
    def step(self) -> StepId:
        return step_id_of(self.root.flow_id, self.agent, self.root.topic, self.root.event_id)

    async def send(self, form: type[StepCommand], generation: int = 1) -> None:
        (started,) = await self.told(FlowStarted)
        body = form(step_id=self.step, subscription=self.root.topic, generation=generation)
        await self.platform.sink.publish([command_record(self.agent, self.root.flow_id, started.choreography, body)])

    async def told(self, form: type[R]) -> Sequence[R]:
        return [record for _, record in await journal_of(self.platform, self.root.flow_id) if isinstance(record, form)]

    async def answer(self, form: type[R], count: int = 1) -> R:
        return (await eventually(lambda: self.told(form), lambda found: len(found) >= count, 45))[-1]


@pytest.fixture
async def kafka_platform(kafka: str, tmp_path: Path) -> AsyncIterator[Platform]:
    async with open_platform(Settings(home=tmp_path, kafka=kafka)) as platform:
        for declaration in platform.catalog.view.active():
            await platform.catalog.retire(declaration["name"])
        await platform.ensure([event_topic(event.event_type) for event in (Ticked, Tocked)])
        yield platform


async def test_a_step_is_undone_and_another_never_begins(platform: Platform) -> None:
    name = unique_agent("undoing")
    agent = undoing(name)
    async with running(platform, agent):
        done = Commanding(platform, name, await platform.bus("tests", Untraced()).publish(Ticked(number=7)))
        await done.answer(StepCompleted)
        await done.send(Compensate)
        await done.answer(StepCompensated)
        await done.send(Compensate)
        await done.answer(StepCompensated, 2)
    # What comes while the agent is away waits for it, the command as well as the event.
    late = Commanding(platform, name, await platform.bus("tests", Untraced()).publish(Ticked(number=8)))
    await platform.catalog.refresh()
    async with running(platform, agent):
        again = Commanding(platform, name, await platform.bus("tests", Untraced()).publish(Ticked(number=9)))
        await again.answer(StepCompleted)
        await again.send(Fence)
        await again.answer(StepCompleted, 2)
    effects = (platform.home / "agents" / name / "effects").read_text().split()
    assert effects.count("undone") == 1 and late.step


async def test_a_flow_is_stuck_and_not_compensated_when_the_ledger_of_what_it_did_is_lost(kafka_platform: Platform) -> None:
    """The worst that could be said of it is that nothing is left."""
    platform = kafka_platform
    name, last, failing = unique_agent("undoing"), Agent(unique_agent("last")), asyncio.Event()

    @last.on(Tocked)
    async def refuse(tocked: Tocked) -> None:
        await failing.wait()
        raise Reject("not like this")

    async with coordinating(platform) as (coordinator, _), running(platform, last):
        await coordinator.ready.wait()
        async with running(platform, undoing(name), temporary=False):
            root = await platform.bus("tests", Untraced()).publish(Ticked(number=7))
            done = Commanding(platform, name, root)
            await done.answer(StepCompleted)
        shutil.rmtree(platform.home / "agents" / name)
        async with running(platform, undoing(name)):
            failing.set()
            undone = await done.answer(CompensationFailed)
            state = await eventually(lambda: state_of(platform, root.flow_id), lambda found: found.state is not State.ABORTING)
    assert state.state is State.STUCK and [each.step_id for each in unsettled(state.saga)] == [done.step]
    assert "was the ledger lost" in undone.detail
    [(_, why)] = await letters(platform, name, 1)
    assert why["dlq-reason"] == "compensation_failed"


@dataclass(frozen=True)
class Death:
    """Where the agent is killed; how often the undo ran in all; how often `StepCompensated` stands before and after its return."""

    point: str
    undone: int
    told: tuple[int, int]


DEATHS = {
    "in the middle of the undo": Death("undo", 1, (0, 1)),
    "between the undo and its row": Death("undone", 2, (0, 1)),
    "between the row and the answer": Death("answer", 1, (0, 1)),
    "between the answer and the commit": Death("command commit", 1, (1, 2)),
}


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)
async def test_an_agent_killed_while_it_undoes_undoes_under_the_same_key_and_answers(kafka_platform: Platform, death: Death) -> None:
    platform, name = kafka_platform, unique_agent("undoing")
    dying = await start(platform, name, "--agent", "undoing", "--die-at", death.point)
    try:
        commanding = Commanding(platform, name, await platform.bus("tests", Untraced()).publish(Ticked(number=7)))
        await commanding.answer(StepCompleted)
        await commanding.send(Compensate)
        assert await dying.wait() == -signal.SIGKILL
    finally:
        await end([dying])
    assert len(await commanding.told(StepCompensated)) == death.told[0]
    async with running(platform, undoing(name)):
        await commanding.answer(StepCompensated, death.told[1])
    effects = [line.split() for line in (platform.home / "agents" / name / "effects").read_text().splitlines()]
    assert {key for _, key in effects} == {commanding.step}
    assert [what for what, _ in effects].count("undone") == death.undone
    assert len({each.command_id for each in await commanding.told(StepCompensated)}) == 1


class _Deaf:
    """A transport that gives an instance nothing of some groups: what it would have got is another's."""

    def __init__(self, transport: Any, deaf_to: str) -> None:
        self._transport = transport
        self._deaf_to = deaf_to

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    @asynccontextmanager
    async def source(self, group: str, topics: Collection[str], assignment: Assignment, **options: Any) -> AsyncIterator[Any]:
        if group == self._deaf_to:
            await assignment.assigned([])
            yield _Silent()
        else:
            async with self._transport.source(group, topics, assignment, **options) as source:
                yield source


class _Silent:
    async def fetch(self) -> Sequence[Delivery]:
        await asyncio.Event().wait()
        return ()

    async def commit(self, positions: dict[TopicPartition, int]) -> None:
        raise AssertionError("nothing was fetched")


def deaf_to(platform: Platform, group: str, store: str, home: Path) -> Platform:
    transport: Any = _Deaf(platform.transport, group)
    return replace(platform, transport=transport, settings=replace(platform.settings, store=store), home=home)


async def test_what_runs_in_one_instance_is_fenced_and_undone_by_another(
    kafka_platform: Platform, postgres: Postgres, tmp_path: Path
) -> None:
    name, go_on = unique_agent("shared"), asyncio.Event()
    finished, undone = list[str](), list[str]()

    def shared() -> Agent:
        agent = Agent(name)

        @agent.on(Ticked, timeout_seconds=60)
        async def tock(ticked: Ticked, context: Context) -> Tocked:
            if ticked.number == 7:
                await go_on.wait()
            finished.append(context.idempotency_key)
            return Tocked(number=ticked.number)

        @tock.undo
        async def untock(ticked: Ticked, tocked: Tocked | None, context: Context) -> None:
            undone.append(f"{context.idempotency_key} {tocked}")

        return agent

    working = deaf_to(kafka_platform, command_group(name), postgres.address, tmp_path / "one")
    obeying = deaf_to(kafka_platform, name, postgres.address, tmp_path / "two")
    bus = kafka_platform.bus("tests", Untraced())
    async with running(working, shared()), running(obeying, shared()):
        done = Commanding(kafka_platform, name, await bus.publish(Ticked(number=1)))
        await done.answer(StepCompleted)
        under_way = Commanding(kafka_platform, name, await bus.publish(Ticked(number=7)))
        await under_way.answer(StepStarted)
        await under_way.send(Fence)
        assert (await under_way.answer(StepAbandoned)).command_id, "the other instance has answered"
        await under_way.send(Compensate)
        await done.send(Compensate)
        await done.answer(StepCompensated)
        assert len(undone) == 1, "an attempt that may be alive keeps its undo waiting"
        # The zombie comes to its end: it finds out that this is no longer for it to say, and that lets its undo begin.
        go_on.set()
        await under_way.answer(StepCompensated)
    assert undone == [f"{done.step} {Tocked(number=1)}", f"{under_way.step} None"]
    assert await under_way.told(StepCompleted) == [] and finished == [done.step, under_way.step]
    tocks = [record.key for record in await read_topic(kafka_platform, "crash.tocked")]
    assert under_way.root.flow_id.encode() not in tocks
    assert {record.key for record in await read_topic(kafka_platform, command_topic(name))} == {
        each.root.flow_id.encode() for each in (done, under_way)
    }


async def test_undos_that_are_under_way_when_instances_join_and_leave_are_carried_on_by_whoever_gets_their_commands(
    kafka_platform: Platform, postgres: Postgres, tmp_path: Path
) -> None:
    name, released = unique_agent("rebalanced"), asyncio.Event()
    undone: dict[str, list[str]] = {"one": [], "two": []}

    def member(instance: str, hold: asyncio.Event | None) -> Agent:
        agent = Agent(name)

        @agent.on(Ticked)
        async def tock(ticked: Ticked) -> Tocked:
            return Tocked(number=ticked.number)

        @tock.undo
        async def untock(ticked: Ticked, context: Context) -> None:
            if hold is not None:
                await hold.wait()
            undone[instance].append(context.idempotency_key)

        return agent

    def placed(instance: str, deaf: str | None = None) -> Platform:
        home, settings = tmp_path / instance, replace(kafka_platform.settings, store=postgres.address)
        platform = replace(kafka_platform, settings=settings, home=home)
        return platform if deaf is None else deaf_to(kafka_platform, deaf, postgres.address, home)

    bus = kafka_platform.bus("tests", Untraced())
    async with running(placed("one"), member("one", released)):
        steps = [Commanding(kafka_platform, name, await bus.publish(Ticked(number=number))) for number in range(8)]
        for each in steps:
            await each.answer(StepCompleted)
            await each.send(Compensate)
        # The first one is in the middle of all of them, and loses some to the second.
        async with running(placed("two", name), member("two", None)):

            async def told() -> int:
                return sum([len(await each.told(StepCompensated)) for each in steps])

            await eventually(told, bool)
            assert undone["two"] and not undone["one"]
        released.set()
        for each in steps:
            await each.answer(StepCompensated)
    assert {*undone["one"], *undone["two"]} == {each.step for each in steps}
    for each in steps:
        assert len({answer.command_id for answer in await each.told(StepCompensated)}) == 1


async def test_an_undo_waits_for_the_lease_of_an_attempt_of_which_a_thread_is_left(kafka_platform: Platform) -> None:
    """No thread lets itself be stopped: neither that of a plain function, nor one of `once`, whoever has given it up."""
    never, acting, undone = threading.Event(), Counter[str](), dict[str, float]()

    def agent(how: Callable[[Context], None] | Callable[[Context], Awaitable[None]]) -> Agent:
        agent = Agent(unique_agent("threaded"))

        async def act(ticked: Ticked, context: Context) -> None:
            await how(context)  # type: ignore[misc]  # a coroutine function, as its name here says

        def act_in_a_thread(ticked: Ticked, context: Context) -> None:
            how(context)

        handler = act if inspect.iscoroutinefunction(how) else act_in_a_thread

        @agent.on(Ticked, timeout_seconds=15)(handler).undo
        async def undo(ticked: Ticked, context: Context) -> None:
            undone[agent.name] = time.time()

        return agent

    def stick(context: Context) -> None:
        acting[context.agent] += 1
        never.wait()

    async def once(context: Context) -> None:
        await context.once("act", partial(stick, context))

    async def once_given_up(context: Context) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(once(context), 0.1)
        await asyncio.Event().wait()

    async def all_act() -> bool:
        return len(acting) == len(agents)

    agents = [agent(how) for how in (stick, once, once_given_up)]
    try:
        async with contextlib.AsyncExitStack() as stack:
            for each in agents:
                await stack.enter_async_context(running(kafka_platform, each))
            root = await kafka_platform.bus("tests", Untraced()).publish(Ticked(number=7))
            steps = [Commanding(kafka_platform, each.name, root) for each in agents]
            await eventually(all_act, bool)
            for command, answer in ((Fence, StepAbandoned), (Compensate, StepCompensated)):
                for step in steps:
                    await step.send(command)
                await steps[0].answer(answer, len(steps))
            leased_until = min(started.lease_until.timestamp() for started in await steps[0].told(StepStarted))
    finally:
        never.set()
    assert len(undone) == len(agents) and min(undone.values()) >= leased_until
