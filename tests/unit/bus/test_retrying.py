"""A step that is tried again: when, how often, and what waits behind it meanwhile. Hours pass at once."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from maypole.bus import Agent, Context, Event, Reject, Retry, RetryLater
from maypole.bus.memory.member import MemoryMember
from maypole.bus.ports import Delivery, Record, TopicPartition
from maypole.bus.recording import Recording
from maypole.bus.redrive import letter_of, redriven
from maypole.bus.testing import Choreography
from maypole.schemas.journal import StepCompleted, StepFailed
from maypole.schemas.topics import dead_letters, retry_topic

HOUR = 3600.0
DAY = 24 * HOUR


class Counted(Event, type="retrying.counted"):
    up_to: int
    pause_seconds: float = 0.0


class Ticked(Event, type="retrying.ticked"):
    number: int
    up_to: int = 0
    pause_seconds: float = 0.0


class Tocked(Event, type="retrying.tocked"):
    number: int


class Attempts:
    """What a handler was called for, in order: (flow, number, attempt, virtual time)."""

    def __init__(self) -> None:
        self.world: Choreography | None = None
        self.made: list[tuple[str, int, int, float]] = []

    def note(self, ticked: Ticked, context: Context) -> None:
        assert self.world is not None
        self.made.append((context.flow_id, ticked.number, context.attempt, self.world.now()))

    @property
    def numbers(self) -> list[tuple[int, int]]:
        return [(number, attempt) for _, number, attempt, _ in self.made]


def ticking() -> Agent:
    """One flow's ticks: all at once, or one after the other."""
    agent = Agent("ticking")

    @agent.on(Counted)
    async def count(counted: Counted) -> list[Ticked]:
        ticks = 1 if counted.pause_seconds else counted.up_to
        return [Ticked(number=number, up_to=counted.up_to, pause_seconds=counted.pause_seconds) for number in range(ticks)]

    @agent.on(Ticked)
    async def tick(ticked: Ticked) -> list[Ticked]:
        if not ticked.pause_seconds or ticked.number + 1 == ticked.up_to:
            return []
        await asyncio.sleep(ticked.pause_seconds)
        return [Ticked(number=ticked.number + 1, up_to=ticked.up_to, pause_seconds=ticked.pause_seconds)]

    return agent


def tocking(attempts: Attempts, fails: Callable[[Ticked, int], BaseException | None], *, undo: bool = False, **options: Any) -> Agent:
    agent = Agent("tocking")

    @agent.on(Ticked, **options)
    async def tock(ticked: Ticked, context: Context) -> Tocked:
        attempts.note(ticked, context)
        error = fails(ticked, context.attempt)
        if error is not None:
            raise error
        return Tocked(number=ticked.number)

    if undo:

        @tock.undo
        async def untock(ticked: Ticked) -> None: ...

    return agent


def fails_first(times: int, number: int = 0, error: BaseException | None = None) -> Callable[[Ticked, int], BaseException | None]:
    def fails(ticked: Ticked, attempt: int) -> BaseException | None:
        return (error or ConnectionError("away")) if ticked.number == number and attempt <= times else None

    return fails


def records(world: Choreography, topic: str) -> list[Delivery]:
    partitions = world.broker.topics()[topic]
    logs = [world.broker.log(TopicPartition(topic, partition)) for partition in range(partitions)]
    return [record for log in logs for record in log.read(log.oldest, log.end, float("inf"))]


KINDS = pytest.mark.parametrize("kind", [{}, {"pure": True}, {"undo": True}], ids=["events", "pure", "acting"])


@KINDS
async def test_what_fails_waits_on_retry_topics_never_early_and_hours_cost_nothing(kind: dict[str, Any]) -> None:
    attempts = Attempts()
    agent = tocking(attempts, fails_first(3), retry=Retry(attempts=4, delays=(600, timedelta(minutes=20))), **kind)
    async with Choreography([agent]) as world:
        attempts.world = world
        flow = await world.publish(Ticked(number=0))
        assert await flow.finished(timeout_seconds=6 * HOUR) == "committed"
        one, two = records(world, "tocking.retry.10m"), records(world, "tocking.retry.20m")
        (original,) = records(world, "retrying.ticked")
    times = [at for *_, at in attempts.made]
    assert attempts.numbers == [(0, 1), (0, 2), (0, 3), (0, 4)]
    for (before, after), delay in zip(itertools.pairwise(times), (600, 1200, 1200), strict=True):
        assert delay <= after - before < delay + 1
    assert [len(one), len(two)] == [1, 2]
    for record in (*one, *two):
        assert (record.key, record.value) == (original.key, original.value)
        assert record.headers[: len(original.headers)] == original.headers
        added = dict(record.headers[len(original.headers) :])
        assert (added["retry-topic"], added["retry-partition"]) == (b"retrying.ticked", b"%d" % original.partition)
        assert added["retry-offset"] == b"%d" % original.offset
    assert [dict(record.headers)["retry-attempt"] for record in (*one, *two)] == [b"2", b"3", b"4"]
    assert [type(record) for record in flow.journal].count(StepCompleted) == 1
    assert not any(isinstance(record, StepFailed) for record in flow.journal), "a failed attempt moves no flow"


@KINDS
async def test_what_is_exhausted_is_a_dead_letter_of_the_place_where_it_first_lay(kind: dict[str, Any]) -> None:
    attempts = Attempts()
    agent = tocking(attempts, fails_first(9), retry=Retry(attempts=3, delays=(30,)), **kind)
    async with Choreography([agent]) as world:
        attempts.world = world
        flow = await world.publish(Ticked(number=0))
        await flow.finished(timeout_seconds=HOUR)
        (letter,) = world.dead_letters(agent)
        (original,) = records(world, "retrying.ticked")
    assert attempts.numbers == [(0, 1), (0, 2), (0, 3)]
    assert (letter.reason, letter.attempts) == ("attempts_exhausted", 3)
    assert (letter.topic, letter.partition, letter.offset) == ("retrying.ticked", original.partition, original.offset)
    assert tuple(letter.headers) == original.headers and letter.value == original.value
    (failed,) = [record for record in flow.journal if isinstance(record, StepFailed)]
    assert failed.attempts == 3


@KINDS
async def test_later_events_of_a_flow_wait_behind_and_other_flows_go_on(kind: dict[str, Any]) -> None:
    attempts = Attempts()
    ticks = 5
    troubled: set[str] = set()

    def fails(ticked: Ticked, attempt: int) -> BaseException | None:
        flow, number, _, _ = attempts.made[-1]
        return ConnectionError("away") if flow in troubled and number in (0, 2) and attempt <= 3 else None

    agent = tocking(attempts, fails, retry=Retry(attempts=4, delays=(1, 30, 600)), **kind)
    async with Choreography([agent, ticking()]) as world:
        attempts.world = world
        first = await world.publish(Counted(up_to=ticks))
        troubled.add(first.flow_id)
        second = await world.publish(Counted(up_to=ticks))
        assert await second.finished(timeout_seconds=5) == "committed", "other flows go on"
        assert await first.finished(timeout_seconds=2 * HOUR) == "committed"
    for flow in (first, second):
        order = list(dict.fromkeys(number for at, number, *_ in attempts.made if at == flow.flow_id))
        assert order == list(range(ticks))
        ended = [(number, attempt) for at, number, attempt, _ in attempts.made if at == flow.flow_id]
        assert ended == sorted(ended), "none is begun before those before it are done"
        assert [tocked.number for tocked in flow.of(Tocked)] == list(range(ticks))


async def test_an_event_that_comes_while_others_wait_joins_at_the_end() -> None:
    attempts = Attempts()
    agent = tocking(attempts, fails_first(4), retry=Retry(attempts=5, delays=(30, 30, 600, 60)))
    async with Choreography([agent, ticking()]) as world:
        attempts.world = world
        flow = await world.publish(Counted(up_to=40, pause_seconds=25))
        assert await flow.finished(timeout_seconds=3 * HOUR) == "committed"
    assert attempts.numbers == [(0, 1), (0, 2), (0, 3), (0, 4), *((number, 5 if number == 0 else 1) for number in range(40))]


async def test_those_that_waited_follow_at_once_when_the_first_is_done() -> None:
    attempts = Attempts()
    agent = tocking(attempts, fails_first(1), retry=Retry(delays=(30,)))
    async with Choreography([agent, ticking()]) as world:
        attempts.world = world
        flow = await world.publish(Counted(up_to=5))
        assert await flow.finished(timeout_seconds=HOUR) == "committed"
        assert len(records(world, "tocking.retry.30s")) == 5, "each waited once"
    assert attempts.made[-1][3] - attempts.made[1][3] < 0.5


async def test_a_record_that_comes_twice_does_not_begin_its_next_attempt_early() -> None:
    attempts = Attempts()
    again = {"retrying.ticked": 3}
    agent = tocking(attempts, fails_first(1), retry=Retry(delays=(30,)))

    def deliver_again(record: Delivery) -> bool:
        again[record.topic] = again.get(record.topic, 0) - 1
        return again[record.topic] >= 0

    async with Choreography([agent, ticking()]) as world:
        attempts.world = world
        world.faults.deliver_again = deliver_again
        flow = await world.publish(Counted(up_to=2))
        assert await flow.finished(timeout_seconds=HOUR) == "committed"
        await asyncio.sleep(HOUR)
    assert attempts.numbers == [(0, 1), (0, 2), (1, 1)]
    assert attempts.made[1][3] - attempts.made[0][3] >= 30


async def test_retry_later_waits_at_least_so_long_and_counts_as_an_attempt() -> None:
    attempts = Attempts()
    agent = tocking(attempts, fails_first(9, error=RetryLater(timedelta(minutes=3))))
    short = Agent("short")
    begun: list[float] = []

    @short.on(Ticked)
    async def soon(ticked: Ticked, context: Context) -> None:
        begun.append(world.now())
        if context.attempt == 1:
            raise RetryLater(2)

    async with Choreography([agent, short]) as world:
        attempts.world = world
        flow = await world.publish(Ticked(number=0))
        await flow.finished(timeout_seconds=HOUR)
        (letter,) = world.dead_letters("tocking")
        assert not records(world, "short.retry.30s"), "a short wait happens in place"
    times = [at for *_, at in attempts.made]
    assert all(180 <= after - before < 220 for before, after in itertools.pairwise(times))
    assert (len(times), letter.attempts, letter.reason) == (3, 3, "attempts_exhausted")
    assert 2 <= begun[1] - begun[0] < 3


async def test_only_exceptions_that_may_pass_are_tried_again() -> None:
    attempts = Attempts()
    agent = tocking(attempts, fails_first(9, error=KeyError("no such")), retry=Retry(delays=(30,), on=(ConnectionError, TimeoutError)))
    async with Choreography([agent]) as world:
        attempts.world = world
        flow = await world.publish(Ticked(number=0))
        await flow.finished()
        assert [letter.attempts for letter in flow.dead_letters] == [1]


async def test_a_rejection_of_a_later_attempt_is_final() -> None:
    attempts = Attempts()

    def fails(ticked: Ticked, attempt: int) -> BaseException | None:
        return ConnectionError("away") if attempt == 1 else Reject("never")

    agent = tocking(attempts, fails, retry=Retry(attempts=9, delays=(30,)))
    async with Choreography([agent]) as world:
        attempts.world = world
        flow = await world.publish(Ticked(number=0))
        await flow.finished(timeout_seconds=HOUR)
        assert [(letter.reason, letter.attempts) for letter in flow.dead_letters] == [("rejected", 2)]


@KINDS
async def test_attempts_are_counted_across_crashes(kind: dict[str, Any]) -> None:
    attempts = Attempts()
    agent = tocking(attempts, fails_first(9), retry=Retry(attempts=3, delays=(60,)), **kind)
    async with Choreography([agent]) as world:
        attempts.world = world
        flow = await world.publish(Ticked(number=0))
        for _ in range(3):
            await asyncio.sleep(40)
            await world.kill(agent)
            await world.start(agent)
        await flow.finished(timeout_seconds=HOUR)
        assert [(letter.reason, letter.attempts) for letter in flow.dead_letters] == [("attempts_exhausted", 3)]
    assert attempts.numbers == [(0, 1), (0, 2), (0, 3)]


@KINDS
async def test_attempts_in_place_are_counted_across_crashes_too(kind: dict[str, Any]) -> None:
    attempts = Attempts()
    agent = tocking(attempts, fails_first(9), retry=Retry(attempts=3, delays=(5,)), **kind)
    async with Choreography([agent], seed=1) as world:
        attempts.world = world
        flow = await world.publish(Ticked(number=0))
        for made in (1, 2):
            while len(attempts.made) < made:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)  # written down, and not tried again yet
            assert len(attempts.made) == made
            await world.kill(agent)
            await world.start(agent)
        await flow.finished(timeout_seconds=HOUR)
        assert [(letter.reason, letter.attempts) for letter in flow.dead_letters] == [("attempts_exhausted", 3)]
    assert attempts.numbers == [(0, 1), (0, 2), (0, 3)]


@pytest.mark.parametrize("kind", [{}, {"pure": True}], ids=["events", "pure"])
async def test_an_attempt_that_a_rebalance_cut_off_keeps_nobody_waiting_for_its_lease(kind: dict[str, Any]) -> None:
    attempts, agent = Attempts(), Agent("tocking")

    @agent.on(Ticked, retry=Retry(delays=(30,)), timeout_seconds=HOUR, **kind)
    async def tock(ticked: Ticked, context: Context) -> Tocked:
        attempts.note(ticked, context)
        if context.attempt == 1:
            raise ConnectionError("away")
        await asyncio.sleep(HOUR / 2 if context.attempt == 2 else 0)
        return Tocked(number=ticked.number)

    async with Choreography([agent]) as world:
        attempts.world = world
        flow = await world.publish(Ticked(number=0))
        while len(attempts.made) < 2:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(1)
        (member,) = world.broker.group("tocking").members
        assert isinstance(member, MemoryMember)
        member.expel()
        assert await flow.finished(timeout_seconds=60) == "committed"
    assert attempts.numbers == [(0, 1), (0, 2), (0, 3)]


def test_a_retry_topic_keeps_its_records_for_longer_than_they_wait() -> None:
    assert retry_topic("tocking", 30).retention_ms == dead_letters("tocking").retention_ms
    assert retry_topic("tocking", 40 * DAY).retention_ms == 2 * 40 * DAY * 1000


async def test_rows_are_kept_for_as_long_as_an_event_lies_and_waits_and_lies_in_the_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = list[object]()

    class Told(Recording):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            kept.append(self._retention_ms)

    monkeypatch.setattr("maypole.bus.runner.Recording", Told)
    async with Choreography([tocking(Attempts(), fails_first(0), retry=Retry(delays=(40 * DAY,)))]):
        pass
    assert kept == [(7 + 40 + 30) * DAY * 1000]


async def test_a_record_that_waits_is_left_to_whoever_takes_over() -> None:
    attempts = Attempts()
    agent = tocking(attempts, fails_first(1), retry=Retry(delays=(HOUR,)))
    async with Choreography([agent]) as world:
        attempts.world = world
        flow = await world.publish(Ticked(number=0))
        await asyncio.sleep(10)
        await world.stop(agent)
        assert len(records(world, "tocking.retry.1h")) == 1
        await world.start(agent)
        assert await flow.finished(timeout_seconds=2 * HOUR) == "committed"
    assert HOUR <= attempts.made[1][3] - attempts.made[0][3] < HOUR + 1


async def test_what_nobody_can_read_on_a_retry_topic_is_a_dead_letter() -> None:
    attempts = Attempts()
    agent = tocking(attempts, fails_first(1), retry=Retry(delays=(30,)))
    async with Choreography([agent]) as world:
        attempts.world = world
        await world.broker.append([Record("tocking.retry.30s", b"k", b"?", [("retry-due", b"soon")])], lambda: None)
        flow = await world.publish(Ticked(number=0))
        assert await flow.finished(timeout_seconds=HOUR) == "committed"
        assert [(letter.reason, letter.topic) for letter in world.dead_letters(agent)] == [("undecodable", "tocking.retry.30s")]


async def test_a_redriven_record_runs_again_although_its_step_has_failed() -> None:
    broken = True
    calls: list[int] = []
    watching = Agent("watching")

    @watching.on(Ticked, retry=Retry(attempts=2, delays=(30,)))
    async def watch(ticked: Ticked, context: Context) -> Tocked:
        calls.append(context.attempt)
        if broken:
            raise ConnectionError("away")
        return Tocked(number=ticked.number)

    async with Choreography([ticking()]) as world:
        flow = await world.publish(Counted(up_to=2, pause_seconds=60))
        await asyncio.sleep(30)
        # What comes late only observes this flow, so its failures decide nothing in it.
        await world.start(watching)
        await flow.finished()
        await asyncio.sleep(HOUR)
        (letter,) = records(world, "watching.dlq")
        await world.broker.append([redriven(letter, 1, world.now() * 1000)], lambda: None)
        await asyncio.sleep(HOUR)
        first, again = records(world, "watching.dlq")
        assert (letter_of(first).replays, letter_of(again).replays) == (0, 1)
        assert letter_of(first).origin == letter_of(again).origin
        assert calls == [1, 2, 1, 2], "its attempts begin anew"
        broken = False
        copy = redriven(again, 2, world.now() * 1000)
        await world.broker.append([copy, copy], lambda: None)
        await asyncio.sleep(HOUR)
        outputs = records(world, "retrying.tocked")
    assert calls == [1, 2, 1, 2, 1], "one run, however often the copy is read"
    assert len({dict(record.headers)["ce_id"] for record in outputs}) == 1
    assert all(dict(record.headers)["ce_observer"] == b"true" for record in outputs)


@KINDS
@pytest.mark.parametrize("seed", range(6))
async def test_crashes_at_any_time_lose_nothing_and_keep_the_order_of_each_flow(seed: int, kind: dict[str, Any]) -> None:
    chance = random.Random(seed)
    attempts, ticks, flows_max = Attempts(), 12, 4
    stubborn: dict[tuple[str, int], int] = defaultdict(lambda: chance.choice((0, 0, 0, 1, 2, 3)))

    def fails(ticked: Ticked, attempt: int) -> BaseException | None:
        flow, number, _, _ = attempts.made[-1]
        return ConnectionError("away") if attempt <= stubborn[flow, number] else None

    agent = tocking(attempts, fails, retry=Retry(attempts=20, delays=(chance.choice((0.5, 10)), 30, 8, 60)), **kind)
    async with Choreography([agent, ticking()], seed=seed) as world:
        attempts.world = world
        flows = [await world.publish(Counted(up_to=ticks, pause_seconds=chance.choice((0, 0.1, 9)))) for _ in range(flows_max)]
        for _ in range(12):
            await asyncio.sleep(chance.choice((0.0, 0.001, 0.4, 7, 29, 61)) * chance.random())
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
            await world.kill(agent)
            await world.start(agent)
        states = [await flow.finished(timeout_seconds=20 * HOUR) for flow in flows]
        tocked = records(world, "retrying.tocked")
    assert states == ["committed"] * flows_max
    for flow in flows:
        ids = [dict(record.headers)["ce_id"] or b"" for record in tocked if record.key == flow.flow_id.encode()]
        numbers = {event.event_id.encode(): event.event.number for event in flow.events if isinstance(event.event, Tocked)}
        # A repetition after a death may follow later; what comes first must be whole and in order.
        assert list(dict.fromkeys(numbers[each] for each in ids)) == list(range(ticks))
        assert len(set(ids)) == ticks
