"""Joins whose time is up: the journal is told by the agent, the engine says what follows, and the agent does it once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import pytest

from maypole.bus import Agent, Context, Event, RetryLater, all_of
from maypole.bus.ports import Record
from maypole.bus.testing import Choreography, Flow
from maypole.schemas.commands import COMMANDS, Expire
from maypole.schemas.event import Event as AnyEvent
from maypole.schemas.identifiers import StepId, awaited_trigger, step_id_of
from maypole.schemas.journal import DeadlineFired, Effect, FlowStarted, StepCompleted, StepFailed
from maypole.services.saga import Command, outstanding
from tests.support.commanding import command_record

SUBSCRIPTION = "tests.income+tests.score"


class Asked(Event, type="tests.asked"):
    score_after: float = 0
    income_after: float = 0


class Score(Event, type="tests.score"):
    points: int


class Income(Event, type="tests.income"):
    yearly: int


class Decided(Event, type="tests.decided"):
    granted: bool


class Referred(Event, type="tests.referred"):
    missing: tuple[str, ...]


scoring, verification = Agent("scoring"), Agent("verification")


@scoring.on(Asked)
async def score(asked: Asked) -> Score:
    await asyncio.sleep(asked.score_after)
    return Score(points=500)


@verification.on(Asked)
async def verify(asked: Asked) -> Income:
    await asyncio.sleep(asked.income_after)
    return Income(yearly=30_000)


@dataclass
class Desk:
    calls: list[str] = field(default_factory=list)
    fails: list[BaseException] = field(default_factory=list)
    takes: float = 0

    def agent(self, *, refers: bool = True, acts: bool = False, pure: bool = False) -> Agent:
        agent = Agent("decision")

        @agent.on(all_of(Score, Income), within="1m", pure=pure)
        async def decide(score: Score, income: Income) -> Decided:
            self.calls.append("decided")
            await asyncio.sleep(self.takes)
            return Decided(granted=True)

        if refers:

            @decide.expired
            async def refer(score: Score | None, income: Income | None, context: Context) -> Referred:
                missing = tuple(name for name, part in (("score", score), ("income", income)) if part is None)
                self.calls.append(f"referred without {' and '.join(missing)}")
                await asyncio.sleep(self.takes)
                if self.fails:
                    raise self.fails.pop(0)
                return Referred(missing=missing)

        if acts:

            @decide.undo
            async def forget(score: Score | None, income: Income | None) -> None: ...

        return agent


class Coordinator:
    """What the engine asks for, sent by hand."""

    def __init__(self, world: Choreography, flow: Flow) -> None:
        self._world = world
        self.flow = flow
        self.step = step_id_of(flow.flow_id, "decision", SUBSCRIPTION, awaited_trigger(0))

    async def look(self) -> list[str]:
        """Send whatever has no answer yet; says what that was."""
        asked = list(outstanding(self.flow._state().saga))
        for command in asked:
            await self._send(command)
        return [f"{command.kind.value} {command.subscription}" for command in asked]

    async def expire(self) -> None:
        await self._write(Expire(step_id=self.step, subscription=SUBSCRIPTION))

    async def _send(self, command: Command) -> None:
        form = next(form for form in COMMANDS if form.event_type == f"maypole.{command.kind.value}")
        await self._write(form(step_id=command.step_id, subscription=command.subscription, generation=command.generation))

    async def _write(self, body: AnyEvent) -> None:
        (started,) = (record for record in self.flow.journal if isinstance(record, FlowStarted))
        record: Record = command_record("decision", self.flow.flow_id, started.choreography, body)  # type: ignore[arg-type]
        await self._world.broker.append([record], lambda: None)


def told(flow: Flow, form: type[Event]) -> list[Event]:
    return [record for record in flow.journal if isinstance(record, form) and getattr(record, "agent", "decision") == "decision"]


@pytest.mark.parametrize("options", [{}, {"acts": True}, {"pure": True}], ids=["events", "acts", "pure"])
async def test_what_is_done_then_ends_the_step_with_the_parts_that_came(options: dict[str, bool]) -> None:
    desk = Desk()
    async with Choreography([scoring, verification, desk.agent(**options)], coordinator=False) as world:
        flow = await world.publish(Asked(income_after=200))
        coordinator = Coordinator(world, flow)
        await asyncio.sleep(59)
        assert await coordinator.look() == []
        await asyncio.sleep(2)
        assert await coordinator.look() == [f"expire {SUBSCRIPTION}"]
        await asyncio.sleep(5)
        assert await coordinator.look() == [], "the end of the step is the answer"
        [done] = told(flow, StepCompleted)
        assert isinstance(done, StepCompleted)
        [part] = [event for event in flow.events if event.type == "tests.score"]
        assert done.step_id == coordinator.step and done.parents == (part.event_id,)
        assert done.effect is (Effect.APPLIED if "acts" in options else Effect.NONE)
        assert flow.of(Referred) == (Referred(missing=("income",)),)
        assert await flow.finished(300) == "committed"
        assert flow.of(Income) and desk.calls == ["referred without income"]


async def test_without_a_word_on_it_the_step_fails_and_what_comes_later_is_late(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    decision = desk.agent(refers=False)
    async with Choreography([scoring, verification, decision]) as world:
        flow = await world.publish(Asked(income_after=200))
        coordinator = Coordinator(world, flow)
        await asyncio.sleep(61)
        await coordinator.look()
        await asyncio.sleep(1)
        [failed] = told(flow, StepFailed)
        assert isinstance(failed, StepFailed)
        [part] = [event for event in flow.events if event.type == "tests.score"]
        assert (failed.step_id, failed.reason, failed.parents) == (coordinator.step, "expired", (part.event_id,))
        assert "tests.income did not come in time" in failed.detail and failed.effect is Effect.NONE
        with caplog.at_level(logging.WARNING):
            await asyncio.sleep(200)
        [late] = [record for record in caplog.records if record.message == "join.part_late"]
        assert late.__dict__["topic"] == "tests.income"
        assert flow.state == "compensated" and flow.dead_letters == () and desk.calls == []
        await world.stop(decision)
        group = world.broker.group("decision").committed
        assert all(group[at] == world.broker.log(at).end for at in group)


async def test_told_again_the_command_has_the_same_answer() -> None:
    desk = Desk()
    async with Choreography([scoring, verification, desk.agent(refers=False)]) as world:
        flow = await world.publish(Asked(income_after=200))
        coordinator = Coordinator(world, flow)
        await asyncio.sleep(61)
        for _ in range(3):
            await coordinator.expire()
            await asyncio.sleep(5)
        answers = told(flow, StepFailed)
        assert len(answers) == 3 and len(set(map(str, answers))) == 1


async def test_a_handler_that_is_told_again_ends_the_step_once() -> None:
    desk = Desk()
    async with Choreography([scoring, verification, desk.agent()]) as world:
        flow = await world.publish(Asked(income_after=200))
        coordinator = Coordinator(world, flow)
        await asyncio.sleep(61)
        for _ in range(3):
            await coordinator.expire()
        await asyncio.sleep(5)
        await coordinator.expire()
        assert await flow.finished(300) == "committed"
        assert desk.calls == ["referred without income"] and len(flow.of(Referred)) == 1


async def test_a_join_that_fired_answers_with_its_own_end() -> None:
    desk = Desk()
    async with Choreography([scoring, verification, desk.agent()]) as world:
        flow = await world.publish(Asked())
        await flow.finished()
        await Coordinator(world, flow).expire()
        await asyncio.sleep(5)
        first, again = told(flow, StepCompleted)
        assert first == again and desk.calls == ["decided"] and flow.state == "committed"


async def test_a_join_whose_handler_is_at_work_is_not_late_any_more() -> None:
    desk = Desk(takes=20)
    async with Choreography([scoring, verification, desk.agent(refers=False)]) as world:
        flow = await world.publish(Asked())
        await asyncio.sleep(5)
        await Coordinator(world, flow).expire()
        assert await flow.finished() == "committed"
        assert told(flow, StepFailed) == [] and desk.calls == ["decided"]


async def test_a_join_of_which_no_part_has_come_expires_with_the_first_one() -> None:
    desk = Desk()
    async with Choreography([scoring, verification, desk.agent()]) as world:
        flow = await world.publish(Asked(score_after=30, income_after=200))
        await Coordinator(world, flow).expire()
        await asyncio.sleep(5)
        assert desk.calls == []
        assert await flow.finished(300) == "committed"
        assert desk.calls == ["referred without income"]


async def test_a_join_of_which_no_part_has_come_fails_at_once_without_a_word_on_it() -> None:
    desk = Desk()
    async with Choreography([scoring, verification, desk.agent(refers=False)]) as world:
        flow = await world.publish(Asked(score_after=30, income_after=40))
        await Coordinator(world, flow).expire()
        await asyncio.sleep(5)
        [failed] = told(flow, StepFailed)
        assert isinstance(failed, StepFailed) and failed.parents == ()
        await asyncio.sleep(100)
        assert desk.calls == [] and flow.dead_letters == () and len(told(flow, StepFailed)) == 1


@pytest.mark.parametrize("refers", [True, False])
async def test_kills_around_the_expiry_lose_nothing_and_end_the_step_once(refers: bool) -> None:
    desk = Desk(takes=10)
    decision = desk.agent(refers=refers)
    async with Choreography([scoring, verification, decision]) as world:
        flow = await world.publish(Asked(income_after=200))
        coordinator = Coordinator(world, flow)
        await asyncio.sleep(61)
        await coordinator.look()
        await asyncio.sleep(5)
        await world.kill(decision)
        await asyncio.sleep(100)
        await world.start(decision)
        await coordinator.look()
        await asyncio.sleep(30)
        ends = [*told(flow, StepCompleted), *told(flow, StepFailed)]
        assert len({end.model_dump_json() for end in ends}) == 1
        if refers:
            assert flow.of(Referred) == (Referred(missing=("income",)),) and "decided" not in desk.calls
            assert await flow.finished(300) == "committed"
        else:
            assert [each.reason for each in flow.journal if isinstance(each, StepFailed)].count("expired") >= 1 and desk.calls == []


@pytest.mark.parametrize("after", [1, 40], ids=["in place", "on a retry topic"])
async def test_what_is_done_then_is_tried_again_like_any_handler(after: int) -> None:
    desk = Desk(fails=[RetryLater(after), RetryLater(after)])
    async with Choreography([scoring, verification, desk.agent()]) as world:
        flow = await world.publish(Asked(income_after=250))
        await asyncio.sleep(61)
        await Coordinator(world, flow).look()
        assert await flow.finished(300) == "committed"
        assert desk.calls == ["referred without income"] * 3 and len(flow.of(Referred)) == 1


async def test_the_time_that_is_told_names_the_step_that_the_engine_awaits() -> None:
    async with Choreography([scoring, verification, Desk().agent()]) as world:
        flow = await world.publish(Asked(income_after=200))
        await asyncio.sleep(70)
        [fired] = [record for record in flow.journal if isinstance(record, DeadlineFired)]
        assert StepId(fired.scope) in flow._state().expected
