"""Joins of whole flows: what completes them, what they leave in the journal, and what is made of parts that nobody needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from maypole.bus import Agent, Context, Event, Reject, RetryLater, WrongDeclaration, all_of, at_least
from maypole.bus.inputs import input_of
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.ports import Record, TopicPartition
from maypole.bus.testing import Choreography, Flow, FlowEvent
from maypole.schemas.identifiers import StepId
from maypole.schemas.journal import DeadlineFired, StepCompleted, StepFailed, StepStarted


class Asked(Event, type="tests.asked"):
    points: int = 500
    yearly: int = 30_000


class Score(Event, type="tests.score"):
    points: int


class Income(Event, type="tests.income"):
    yearly: int


class Fraud(Event, type="tests.fraud"):
    found: bool


class Decided(Event, type="tests.decided"):
    granted: bool


scoring, verification, checks = Agent("scoring"), Agent("verification"), Agent("checks")


@scoring.on(Asked)
async def score(asked: Asked) -> Score:
    return Score(points=asked.points)


@verification.on(Asked)
async def verify(asked: Asked) -> Income | None:
    await asyncio.sleep(asked.yearly / 1000)
    return Income(yearly=asked.yearly) if asked.yearly else None


@checks.on(Asked)
async def check(asked: Asked) -> Fraud:
    return Fraud(found=False)


@dataclass
class Desk:
    """Decides, and remembers what it was given."""

    seen: list[tuple[int, int, bool]] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)
    raises: Callable[[Context], BaseException | None] = lambda context: None

    def agent(self, **options: Any) -> Agent:
        agent = Agent("decision")

        @agent.on(all_of(Income, Fraud, Score), **options)
        async def decide(income: Income, fraud: Fraud, score: Score, context: Context) -> Decided:
            self.seen.append((score.points, income.yearly, fraud.found))
            self.contexts.append(context)
            error = self.raises(context)
            if error is not None:
                raise error
            return Decided(granted=score.points > 300 and not fraud.found)

        return agent


def header(world: Choreography, event: FlowEvent, name: str) -> str:
    record = world.broker.log(TopicPartition(event.topic, event.partition)).read(event.offset, 1, world.now())[0]
    return (dict(record.headers)[name] or b"").decode()


def before() -> list[Agent]:
    return [scoring, verification, checks]


@pytest.mark.parametrize("options", [{}, {"within": "1m"}, {"pure": True}, {"pure": True, "within": "1m"}], ids=str)
async def test_a_join_fires_once_all_its_parts_are_there(options: dict[str, Any]) -> None:
    desk = Desk()
    async with Choreography([*before(), desk.agent(**options)]) as world:
        flow = await world.publish(Asked(), business_key="application 7")
        assert await flow.finished() == "committed"
        assert flow.of(Decided) == (Decided(granted=True),)
        assert desk.seen == [(500, 30_000, False)]
        [step] = [record for record in flow.journal if isinstance(record, StepCompleted) and record.agent == "decision"]
        parts = {event.type: event for event in flow.events if event.type in ("tests.income", "tests.fraud", "tests.score")}
        assert step.subscription == "tests.fraud+tests.income+tests.score"
        assert set(step.parents) == {part.event_id for part in parts.values()}
        [decided] = [event for event in flow.events if event.type == "tests.decided"]
        assert decided.version == 1 + max(part.version for part in parts.values())
        # The income came last: it is what completed the join.
        assert step.parents[0] == parts["tests.income"].event_id
        assert decided.parents == step.parents
        assert header(world, decided, "ce_causationid") == parts["tests.income"].event_id
        [context] = desk.contexts
        assert context.event_id == parts["tests.income"].event_id and context.business_key == "application 7"


async def test_a_part_alone_waits_and_its_offset_is_committed() -> None:
    desk = Desk()
    decision = desk.agent()
    async with Choreography([*before(), decision]) as world:
        flow = await world.publish(Asked(yearly=0))
        assert await flow.finished() == "committed", "nobody is left who could give the missing part"
        await world.stop(decision)
        assert desk.seen == [] and flow.dead_letters == ()
        positions = world.broker.group("decision").committed
        assert all(positions[at] == world.broker.log(at).end for at in positions if at.topic != "tests.income")


@pytest.mark.parametrize("kind", ["events", "pure", "within"])
async def test_kills_between_any_two_parts_lose_none_and_fire_once(kind: str) -> None:
    desk = Desk()
    options: dict[str, dict[str, Any]] = {"events": {}, "pure": {"pure": True}, "within": {"within": "10m"}}
    decision = desk.agent(**options[kind])
    async with Choreography([*before(), decision]) as world:
        flow = await world.publish(Asked(yearly=90_000))
        await asyncio.sleep(30)
        assert flow.types.count("tests.score") == 1 and flow.of(Income) == ()
        await world.kill(decision)
        await asyncio.sleep(30)
        await world.start(decision)
        assert await flow.finished() == "committed"
        await world.kill(decision)
        await world.start(decision)
        assert await flow.finished() == "committed"
        assert desk.seen == [(500, 90_000, False)] and len(flow.of(Decided)) == 1


async def test_parts_that_are_delivered_again_change_nothing() -> None:
    desk = Desk()
    async with Choreography([*before(), desk.agent()]) as world:
        flow = await world.publish(Asked())
        await flow.finished()
        for event in flow.events:
            if event.type != "tests.asked":
                await again(world, event)
        await asyncio.sleep(60)
        assert desk.seen == [(500, 30_000, False)]
        assert [event.type for event in flow.events].count("tests.decided") == 1 and flow.dead_letters == ()
        # Only the part that came last answers for the step, so only with it the end is told again.
        ends = [record for record in flow.journal if isinstance(record, StepCompleted) and record.agent == "decision"]
        assert len(ends) == 2 and ends[0] == ends[1]


async def test_a_part_that_comes_twice_before_the_others_is_one_part() -> None:
    desk = Desk()
    async with Choreography([*before(), desk.agent()]) as world:
        flow = await world.publish(Asked(yearly=90_000))
        await asyncio.sleep(30)
        await again(world, next(event for event in flow.events if event.type == "tests.score"))
        assert await flow.finished(300) == "committed"
        assert desk.seen == [(500, 90_000, False)]


async def test_a_second_event_of_a_type_belongs_to_the_next_round_of_the_join() -> None:
    desk = Desk()
    twice = Agent("scoring")

    @twice.on(Asked)
    async def score(asked: Asked) -> list[Score]:
        return [Score(points=asked.points), Score(points=1)]

    again_verified = Agent("verification")

    @again_verified.on(Asked)
    async def verify(asked: Asked) -> list[Income]:
        return [Income(yearly=1), Income(yearly=2)]

    checked_twice = Agent("checks")

    @checked_twice.on(Asked)
    async def check(asked: Asked) -> list[Fraud]:
        return [Fraud(found=False), Fraud(found=True)]

    async with Choreography([twice, again_verified, checked_twice, desk.agent()]) as world:
        flow = await world.publish(Asked())
        assert await flow.finished() == "committed"
        assert desk.seen == [(500, 1, False), (1, 2, True)]
        assert len({record.step_id for record in flow.journal if isinstance(record, StepCompleted) and record.agent == "decision"}) == 2


async def again(world: Choreography, event: FlowEvent) -> None:
    """Written a second time, as a producer does that has died before it knew."""
    [record] = world.broker.log(TopicPartition(event.topic, event.partition)).read(event.offset, 1, world.now())
    async with MemoryTransport(world.broker).sink() as sink:
        await sink.publish([Record(record.topic, record.key, record.value, record.headers)])


@pytest.mark.parametrize("points", [200, 400])
@pytest.mark.parametrize("yearly", [100, 60_000], ids=["refused last", "refused first"])
async def test_what_is_required_of_a_part_fails_the_step_of_the_join(points: int, yearly: int) -> None:
    desk = Desk()
    async with Choreography([*before(), desk.agent(require={Score: at_least("points", 300)})]) as world:
        flow = await world.publish(Asked(points=points, yearly=yearly))
        await flow.finished(300)
        if points > 300:
            assert flow.state == "committed" and desk.seen
            return
        assert flow.state == "compensated" and desk.seen == []
        [failed] = [record for record in flow.journal if isinstance(record, StepFailed)]
        assert (failed.agent, failed.reason, len(failed.parents)) == ("decision", "contract_refused", 3)
        first = flow.dead_letters[0]
        assert "points >= 300" in first.error and first.event_type == "tests.score"


async def test_a_refused_part_of_a_join_that_may_expire_fails_it_at_once() -> None:
    desk = Desk()
    async with Choreography([*before(), desk.agent(within="10m", require={Score: at_least("points", 300)})]) as world:
        flow = await world.publish(Asked(points=200, yearly=120_000))
        await asyncio.sleep(60)
        assert flow.state == "aborting" and flow.of(Income) == ()
        await asyncio.sleep(120)
        assert flow.of(Income) != () and desk.seen == []
        assert len(flow.dead_letters) == 1 and len([each for each in flow.journal if isinstance(each, StepFailed)]) == 1


@pytest.mark.parametrize("after", [1, 40], ids=["in place", "on a retry topic"])
async def test_a_join_is_tried_again_with_the_same_parts(after: int) -> None:
    desk = Desk(raises=lambda context: RetryLater(after) if context.attempt < 3 else None)
    async with Choreography([*before(), desk.agent()]) as world:
        flow = await world.publish(Asked())
        assert await flow.finished(300) == "committed"
        assert desk.seen == [(500, 30_000, False)] * 3
        assert len({context.step_id for context in desk.contexts}) == 1


async def test_a_join_that_is_refused_buries_the_part_that_came_last() -> None:
    desk = Desk(raises=lambda context: Reject("never"))
    async with Choreography([*before(), desk.agent()]) as world:
        flow = await world.publish(Asked())
        assert await flow.finished() == "compensated"
        [letter] = flow.dead_letters
        assert (letter.reason, letter.event_type) == ("rejected", "tests.income")


async def test_a_join_that_acts_says_so_before_and_keeps_all_parts_for_its_undo() -> None:
    agent = Agent("decision")

    @agent.on(all_of(Income, Score))
    async def decide(income: Income, score: Score, context: Context) -> Decided:
        return Decided(granted=bool(context.idempotency_key))

    @decide.undo
    async def forget(income: Income, score: Score) -> None: ...

    async with Choreography([*before(), agent]) as world:
        flow = await world.publish(Asked())
        assert await flow.finished() == "committed"
        [started] = [record for record in flow.journal if isinstance(record, StepStarted)]
        [done] = [record for record in flow.journal if isinstance(record, StepCompleted) and record.agent == "decision"]
        assert started.step_id == done.step_id and set(started.parents) == set(done.parents) and len(done.parents) == 2
        row = world._cast._stage.stores.of("decision").steps[StepId(done.step_id)]
        assert [delivery.topic for delivery, _ in input_of("decision", row)] == ["tests.score", "tests.income"]


async def test_when_its_time_is_up_the_journal_is_told_and_nothing_is_decided() -> None:
    desk = Desk()
    decision = desk.agent(within="1m")
    async with Choreography([*before(), decision]) as world:
        began = world.now()
        flow = await world.publish(Asked(yearly=250_000))
        await asyncio.sleep(59)
        assert not fired(flow)
        await asyncio.sleep(2)
        [told] = fired(flow)
        assert 59.9 < told.due.timestamp() - began < 61
        # Nobody answers here, so the part that comes after all is not late: the journal alone decides what is.
        assert await flow.finished(600) == "committed"
        assert desk.seen == [(500, 250_000, False)]
        [step] = [record for record in flow.journal if isinstance(record, StepCompleted) and record.agent == "decision"]
        assert told.scope == step.step_id


async def test_whoever_takes_over_watches_the_time_of_what_waits() -> None:
    decision = Desk().agent(within="1m")
    async with Choreography([*before(), decision]) as world:
        flow = await world.publish(Asked(yearly=250_000))
        await asyncio.sleep(30)
        await world.kill(decision)
        await asyncio.sleep(200)
        assert not fired(flow)
        await world.start(decision)
        await asyncio.sleep(5)
        assert len(fired(flow)) == 1


async def test_a_join_that_is_complete_in_time_is_not_told_of() -> None:
    async with Choreography([*before(), Desk().agent(within="1m")]) as world:
        flow = await world.publish(Asked())
        await flow.finished()
        await asyncio.sleep(600)
        assert not fired(flow)


def fired(flow: Flow) -> list[DeadlineFired]:
    return [record for record in flow.journal if isinstance(record, DeadlineFired)]


async def test_an_agent_that_only_observes_joins_what_it_sees_and_nobody_waits_for_it() -> None:
    desk = Desk()
    async with Choreography(before()) as world:
        flow = await world.publish(Asked(yearly=90_000))
        await world.start(desk.agent(within="1m"), start="earliest")
        await asyncio.sleep(300)
        assert flow.state == "committed" and desk.seen == [(500, 90_000, False)]
        assert not fired(flow)
        assert [event.type for event in flow.events if event.producer == "decision"] == ["tests.decided"]


async def test_what_an_observer_emits_completes_no_join_that_is_waited_for() -> None:
    desk = Desk()
    stranger = Agent("stranger")

    @stranger.on(Asked)
    async def guess(asked: Asked) -> Income:
        return Income(yearly=1)

    async with Choreography([*before(), desk.agent()]) as world:
        flow = await world.publish(Asked(yearly=90_000))
        await world.start(stranger, start="earliest")
        assert await flow.finished(300) == "committed"
        assert [event.producer for event in flow.events if event.type == "tests.income"] == ["verification", "stranger"]
        assert desk.seen == [(500, 90_000, False)]


async def test_topics_with_different_numbers_of_partitions_are_refused_at_the_start() -> None:
    async with Choreography(before()) as world:
        world.broker.create_topic("tests.fee", 7, {})

        class Fee(Event, type="tests.fee"):
            cents: int

        agent = Agent("billing")

        @agent.on(all_of(Fee, Score))
        async def bill(fee: Fee, score: Score) -> None: ...

        with pytest.raises(WrongDeclaration, match=r"tests.fee has 7, tests.score has 4"):
            await world.start(agent)


async def test_what_a_join_emits_is_one_version_above_the_highest_of_its_parts_whichever_came_last() -> None:
    class Rescored(Event, type="tests.rescored"):
        points: int

    again = Agent("rescoring")

    @again.on(Score)
    async def rescore(score: Score) -> Rescored:
        return Rescored(points=score.points + 1)

    decision = Agent("decision")

    @decision.on(all_of(Rescored, Income))
    async def decide(rescored: Rescored, income: Income) -> Decided:
        return Decided(granted=rescored.points > income.yearly)

    async with Choreography([scoring, verification, again, decision]) as world:
        flow = await world.publish(Asked())
        assert await flow.finished() == "committed"
        versions = {event.type: event.version for event in flow.events}
        assert versions == {"tests.asked": 1, "tests.score": 2, "tests.rescored": 3, "tests.income": 2, "tests.decided": 4}
