"""Outages meet retry topics, restarts and poison: no attempt is burnt, nobody else waits, and one bad record is no outage."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from maypole.bus import Agent, Breaker, Context, Event, Retry, RetryLater, at_least
from maypole.bus.ports import Delivery, Record
from maypole.bus.testing import Choreography, Flow
from maypole.schemas.journal import StepStarted
from tests.unit.bus.test_retrying import HOUR, KINDS, Attempts, Ticked, Tocked, records, tocking

MINUTE = 60.0


class Rung(Event, type="retrying.rung"):
    number: int


async def ticks(world: Choreography, numbers: range) -> list[Flow]:
    return [await world.publish(Ticked(number=number)) for number in numbers]


def standing(numbers: range, away: list[bool]) -> Callable[[Ticked, int], BaseException | None]:
    """A rate limit for these on their first attempt; an outage for everybody while it lasts."""

    def fails(ticked: Ticked, attempt: int) -> BaseException | None:
        if ticked.number in numbers and attempt == 1:
            return RetryLater(MINUTE / 2)
        return ConnectionError("away") if away else None

    return fails


def committed(world: Choreography, topic: str) -> int:
    return sum(position for at, position in world.broker.group("tocking").committed.items() if at.topic == topic)


@KINDS
async def test_records_of_retry_topics_wait_at_the_gate_of_the_subscription_that_they_came_from(kind: dict[str, Any]) -> None:
    attempts, away = Attempts(), [True]
    agent = tocking(attempts, standing(range(4), away), **kind)
    # Without a coordinator: it would end these flows, because the outage is longer than a flow's deadline.
    async with Choreography([agent], coordinator=False) as world:
        attempts.world = world
        waiting = await ticks(world, range(4))
        await asyncio.sleep(1)
        assert len(records(world, "tocking.retry.30s")) == 4
        failing = await ticks(world, range(10, 15))
        await asyncio.sleep(45)
        tries = len(attempts.made)
        assert all(attempt == 1 for _, attempt in attempts.numbers), "those that were due were not tried"
        assert committed(world, "tocking.retry.30s") == 0, "what waits is not committed"
        await asyncio.sleep(HOUR)
        assert len(attempts.made) - tries <= HOUR / MINUTE + 1, "one probe a minute"
        assert len(records(world, "tocking.retry.30s")) == 4, "none of them was sent on"
        away.clear()
        for flow in (*waiting, *failing):
            assert await flow.finished(timeout_seconds=2 * MINUTE) == "committed"
        await asyncio.sleep(1)
        assert committed(world, "tocking.retry.30s") == 4
        assert world.dead_letters(agent) == ()


def ringing(agent: Agent, rang: list[float], world: Callable[[], float]) -> None:
    """Another subscription of the agent, which is asked to come again once."""

    @agent.on(Rung)
    async def ring(rung: Rung, context: Context) -> None:
        if context.attempt == 1:
            raise RetryLater(MINUTE / 2)
        rang.append(world())


async def test_a_paused_subscription_holds_nobody_up_on_a_retry_topic_that_it_shares() -> None:
    attempts, away, rang = Attempts(), [True], list[float]()
    agent = tocking(attempts, standing(range(40), away))
    ringing(agent, rang, lambda: world.now())
    async with Choreography([agent]) as world:
        attempts.world = world
        ahead = await ticks(world, range(40))
        await asyncio.sleep(1)
        later = await ticks(world, range(50, 55))
        await asyncio.sleep(1)
        behind = [await world.publish(Rung(number=number)) for number in range(20)]
        at = world.now()
        for flow in behind:
            assert await flow.finished(timeout_seconds=MINUTE) == "committed"
        assert len(rang) == 20 and all(29 <= each - at < 32 for each in rang)
        away.clear()
        for flow in (*ahead, *later):
            assert await flow.finished(timeout_seconds=2 * MINUTE) == "committed"


@KINDS
async def test_where_too_many_wait_the_rest_goes_back_to_the_retry_topic_without_an_attempt(
    kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maypole.bus.pausing.WAITING_MAX", 10)
    attempts, away, rang = Attempts(), [True], list[float]()
    agent = tocking(attempts, standing(range(30), away), **kind)
    ringing(agent, rang, lambda: world.now())
    async with Choreography([agent]) as world:
        attempts.world = world
        flows = await ticks(world, range(30))
        await asyncio.sleep(1)
        flows += await ticks(world, range(50, 55))
        await asyncio.sleep(10 * MINUTE)
        assert len(records(world, "tocking.retry.30s")) > 30 + 20 * 5, "sent on each time that it may be worth asking"
        assert all(attempt <= 3 for _, attempt in attempts.numbers)
        other = await world.publish(Rung(number=1))
        assert await other.finished(timeout_seconds=MINUTE) == "committed"
        away.clear()
        for flow in flows:
            assert await flow.finished(timeout_seconds=3 * MINUTE) == "committed"
        assert world.dead_letters(agent) == ()
    tried = Counter(number for number, _ in attempts.numbers if number < 30)
    assert sum(tried.values()) < 30 * 2 + 12, "nobody is tried for waiting"


async def test_a_flow_keeps_its_order_while_its_records_wait_in_both_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maypole.bus.pausing.WAITING_MAX", 3)
    done, away = list[tuple[str, int]](), [True]
    ticking, agent = Agent("ticking"), Agent("tocking")

    @ticking.on(Rung)
    async def tick(rung: Rung) -> list[Ticked]:
        return [Ticked(number=number) for number in range(6)]

    @agent.on(Ticked)
    async def tock(ticked: Ticked, context: Context) -> None:
        if ticked.number == 0 and context.attempt == 1:
            raise RetryLater(MINUTE / 2)
        if away:
            raise ConnectionError("away")
        done.append((context.flow_id, ticked.number))

    async with Choreography([ticking, agent]) as world:
        flows = [await world.publish(Rung(number=number)) for number in range(12)]
        await asyncio.sleep(10 * MINUTE)
        away.clear()
        for flow in flows:
            assert await flow.finished(timeout_seconds=10 * MINUTE) == "committed"
    for flow in flows:
        assert [number for flow_id, number in done if flow_id == flow.flow_id] == [0, 1, 2, 3, 4, 5]


@KINDS
@pytest.mark.parametrize("leaves", ["stop", "kill"])
async def test_restarts_during_an_outage_burn_no_more_than_it_takes_to_see_it(kind: dict[str, Any], leaves: str) -> None:
    attempts, away = Attempts(), [True]
    options = {"timeout_seconds": 5, "retry": Retry(attempts=10), **kind}
    agent = tocking(attempts, lambda ticked, attempt: ConnectionError("away") if away else None, **options)
    async with Choreography([agent], coordinator=False) as world:
        attempts.world = world
        flows = await ticks(world, range(6))
        for _ in range(8):
            await asyncio.sleep(12 * MINUTE)
            await getattr(world, leaves)(agent)
            await world.start(agent)
        assert len(attempts.made) > 8 * (5 + 11), "five in every life, and the probes"
        assert world.dead_letters(agent) == ()
        away.clear()
        for flow in flows:
            assert await flow.finished(timeout_seconds=5 * MINUTE) == "committed"
        assert world.dead_letters(agent) == ()
        if "undo" in kind:
            told = [record.attempt for flow in flows for record in flow.journal if isinstance(record, StepStarted)]
            assert max(told) > 10, "the attempts themselves are told as they were"


async def test_after_an_outage_a_record_has_the_attempts_left_that_it_had_before() -> None:
    """Also where they lie on a retry topic: what did not count goes along."""
    made, ailing = list[int](), {"outage": False, "poison": True}
    agent = Agent("tocking")

    @agent.on(Ticked, retry=Retry(attempts=4, delays=(30,)), breaker=Breaker(failures=2))
    async def tock(ticked: Ticked, context: Context) -> None:
        if ticked.number == 0:
            made.append(context.attempt)
        if ailing["outage"] or (ticked.number == 0 and ailing["poison"]):
            raise ConnectionError("away")

    async with Choreography([agent]) as world:
        bad = await world.publish(Ticked(number=0))
        await asyncio.sleep(1)  # its first attempt failed by itself
        await (await world.publish(Ticked(number=1))).finished()
        ailing["outage"] = True
        await asyncio.sleep(25)
        others = [await world.publish(Ticked(number=number)) for number in (2, 3)]
        await asyncio.sleep(20 * MINUTE)
        ailing["outage"] = False
        for flow in others:
            assert await flow.finished(timeout_seconds=5 * MINUTE) == "committed"
        assert await bad.finished(timeout_seconds=10 * MINUTE) == "compensated"
        (letter,) = bad.dead_letters
        assert letter.reason == "attempts_exhausted"
        probes = len(made) - 4
        assert probes > 3, "it was the probe now and then"


async def test_one_record_that_fails_five_times_is_no_outage() -> None:
    attempts = Attempts()
    agent = tocking(attempts, lambda ticked, attempt: ValueError("poison") if ticked.number == 0 else None, attempts_max=9)
    async with Choreography([agent]) as world:
        attempts.world = world
        bad = await world.publish(Ticked(number=0))
        assert await bad.finished(timeout_seconds=MINUTE) == "compensated", "nine attempts in a row, and no wait of a minute between"
        assert [attempt for _, attempt in attempts.numbers] == list(range(1, 10))
        (good,) = await ticks(world, range(1, 2))
        assert await good.finished(timeout_seconds=1) == "committed"


async def test_ten_thousand_records_that_break_the_contract_open_nothing() -> None:
    agent, good = Agent("tocking"), list[int]()

    @agent.on(Ticked, require=at_least("number", 1), breaker=Breaker(failures=1))
    async def tock(ticked: Ticked) -> None:
        good.append(ticked.number)

    async with Choreography([agent]) as world:
        (first,) = await ticks(world, range(1))
        await first.finished()
        (poison,) = records(world, "retrying.ticked")
        copies = [_copy(poison, str(uuid.UUID(int=number, version=4)).encode()) for number in range(10_000)]
        await world.broker.append(copies, lambda: None)
        (flow,) = await ticks(world, range(1, 2))
        assert await flow.finished(timeout_seconds=MINUTE) == "committed"
        await asyncio.sleep(1)
        assert len(records(world, "tocking.dlq")) == 10_001
    assert good == [1]


async def test_handlers_whose_own_events_break_their_contract_are_no_outage() -> None:
    """As of a language model that answers something else than it was asked for."""
    agent = Agent("tocking")

    @agent.on(Ticked)
    async def tock(ticked: Ticked) -> Tocked:
        return Tocked(number="many" if ticked.number < 8 else ticked.number)  # type: ignore[arg-type]  # that is the point

    async with Choreography([agent]) as world:
        bad = await ticks(world, range(8))
        (good,) = await ticks(world, range(8, 9))
        for flow in bad:
            assert await flow.finished(timeout_seconds=MINUTE) == "compensated", "failed, and nothing to take back"
        assert await good.finished(timeout_seconds=MINUTE) == "committed"
        assert len(world.dead_letters(agent)) == 8


@pytest.mark.parametrize(
    ("error", "opens"),
    [
        (ConnectionError("away"), True),
        (TimeoutError("slow"), True),
        (RetryLater(1), False),
        (type("TooMany", (Exception,), {"status_code": 429})("slow down"), False),
        (LookupError("such a thing cannot pass"), False),
    ],
    ids=["away", "slow", "later", "429", "not-to-be-repeated"],
)
async def test_what_counts_as_an_outage_is_what_may_pass_and_is_no_rate_limit(error: Exception, opens: bool) -> None:
    attempts = Attempts()
    errors = (ConnectionError, TimeoutError, RetryLater, type(error)) if not isinstance(error, LookupError) else ConnectionError
    agent = tocking(attempts, lambda ticked, attempt: error, retry=Retry(attempts=2, on=errors))
    async with Choreography([agent]) as world:
        attempts.world = world
        flows = await ticks(world, range(20))
        await asyncio.sleep(30)
        assert {flow.state for flow in flows} == ({"running"} if opens else {"compensated"})


@pytest.mark.parametrize("off", ["off", None])
async def test_a_breaker_that_is_off_pauses_nothing(off: Any) -> None:
    attempts = Attempts()
    agent = tocking(attempts, lambda ticked, attempt: ConnectionError("away"), breaker=off, attempts_max=1)
    async with Choreography([agent]) as world:
        attempts.world = world
        for flow in await ticks(world, range(20)):
            assert await flow.finished(timeout_seconds=MINUTE) == "compensated"
    assert len(attempts.made) == 20


async def test_what_has_come_to_its_end_is_told_again_while_the_gate_is_shut() -> None:
    attempts, away = Attempts(), list[bool]()
    agent = tocking(attempts, lambda ticked, attempt: ConnectionError("away") if away else None)
    async with Choreography([agent]) as world:
        attempts.world = world
        flow = await world.publish(Ticked(number=0))
        await flow.finished()
        await asyncio.sleep(1)
        away.append(True)
        await ticks(world, range(1, 6))
        await asyncio.sleep(1)
        (done,) = (each for each in records(world, "retrying.ticked") if each.key == flow.flow_id.encode())
        await world.broker.append([_copy(done, None)], lambda: None)
        await asyncio.sleep(MINUTE / 2)
        first, again = (each for each in records(world, Tocked.event_type) if each.key == flow.flow_id.encode())
        assert (first.value, first.headers) == (again.value, again.headers)
    assert attempts.numbers.count((0, 1)) == 1


def _copy(record: Delivery, flow: bytes | None) -> Record:
    """In another flow, if one is given."""
    headers = [(name, flow if flow and name in ("ce_id", "ce_correlationid") else value) for name, value in record.headers]
    return Record(record.topic, flow or record.key, record.value, headers)
