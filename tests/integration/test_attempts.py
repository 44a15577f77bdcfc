"""What a handler may return and raise, and how often it is asked again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from maypole.bus import Agent, Context, Reject
from maypole.bus.composition import Platform
from maypole.bus.hook import Untraced
from maypole.services.saga import State
from tests.support.asking import Answered, Asked, Told
from tests.support.names import unique_agent
from tests.support.world import ended, eventually, letters, read_topic, running


@pytest.mark.parametrize("failing", ["reject", "raise", "invalid", "cancel"])
async def test_whatever_a_handler_raises_or_returns_the_agent_goes_on(platform: Platform, failing: str) -> None:
    agent = Agent(unique_agent())

    @agent.on(Asked, attempts_max=1)
    async def misbehave(asked: Asked) -> Answered | None:
        if asked.text == "good":
            return None
        if failing == "invalid":
            return Answered.model_construct(text=5)  # type: ignore[arg-type]
        if failing == "cancel":
            raise asyncio.CancelledError
        raise (Reject if failing == "reject" else ValueError)("half a pair \ud800")

    async with running(platform, agent):
        bus = platform.bus("tests", Untraced())
        bad = await bus.publish(Asked(text="bad"))
        assert (await ended(platform, bad.flow_id)).state is State.COMPENSATED
        good = await bus.publish(Asked(text="good"))
        assert (await ended(platform, good.flow_id)).state is State.COMMITTED


async def test_a_rejected_event_is_not_tried_again(platform: Platform) -> None:
    agent, calls = Agent(unique_agent()), []

    @agent.on(Asked)
    async def refuse(asked: Asked) -> None:
        calls.append(asked)
        raise Reject("the account is closed")

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        state = await ended(platform, published.flow_id)
    (failed,) = [record for record in state.failed.values() if record.agent == agent.name]
    assert (failed.reason, failed.detail, failed.attempts, len(calls)) == ("rejected", "the account is closed", 1, 1)


async def test_a_handler_that_forgets_to_return_its_event_is_refused(platform: Platform) -> None:
    agent = Agent(unique_agent())

    @agent.on(Asked)
    async def forget(asked: Asked) -> Answered:
        return None  # type: ignore[return-value]

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        state = await ended(platform, published.flow_id)
    (failed,) = [record for record in state.failed.values() if record.agent == agent.name]
    assert failed.reason == "contract_refused" and "Answered" in failed.detail and "| None" in failed.detail


async def test_any_other_exception_is_tried_three_times(platform: Platform) -> None:
    agent, attempts = Agent(unique_agent()), []

    @agent.on(Asked, pivot=True)
    async def fail(asked: Asked, context: Context) -> None:
        attempts.append((context.attempt, context.idempotency_key))
        raise ConnectionError("the service is away")

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        state = await ended(platform, published.flow_id)
        ((_, why),) = await letters(platform, agent.name, 1)
    (failed,) = [record for record in state.failed.values() if record.agent == agent.name]
    assert (failed.reason, failed.attempts) == ("attempts_exhausted", 3) and "the service is away" in failed.detail
    assert why["dlq-attempts"] == "3"
    assert [attempt for attempt, _ in attempts] == [1, 2, 3]
    assert len({key for _, key in attempts}) == 1, "every attempt acts under one key"


async def test_an_attempt_that_recovers_leaves_no_dead_letter(platform: Platform) -> None:
    agent, attempts = Agent(unique_agent()), []

    @agent.on(Asked)
    async def recover(asked: Asked, context: Context) -> None:
        attempts.append(context.attempt)
        if context.attempt == 1:
            raise ConnectionError("away for a moment")

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        assert (await ended(platform, published.flow_id)).state is State.COMMITTED
    assert attempts == [1, 2]
    assert await read_topic(platform, f"{agent.name}.dlq") == []


async def test_a_handler_that_takes_longer_than_its_deadline_is_cancelled_and_counted(platform: Platform) -> None:
    agent, cancelled = Agent(unique_agent()), []

    @agent.on(Asked, timeout_seconds=0.2, attempts_max=2)
    async def hang(asked: Asked) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(asked)

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        state = await ended(platform, published.flow_id)
    (failed,) = [record for record in state.failed.values() if record.agent == agent.name]
    assert failed.reason == "attempts_exhausted" and "longer than 0.2 s" in failed.detail and len(cancelled) == 2


async def test_a_time_limit_inside_a_handler_is_its_own(platform: Platform) -> None:
    agent = Agent(unique_agent())

    @agent.on(Asked)
    async def impatient(asked: Asked) -> Answered:
        try:
            async with asyncio.timeout(0.05):
                await asyncio.Event().wait()
        except TimeoutError:
            return Answered(text="in time")
        raise AssertionError("unreachable")

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        state = await ended(platform, published.flow_id)
    assert agent.name in {record.agent for record in state.completed.values()}


async def test_an_undeclared_output_is_refused_by_name(platform: Platform) -> None:
    agent = Agent(unique_agent())

    @agent.on(Asked)
    async def stray(asked: Asked) -> Answered:
        return Told(text="not declared")  # type: ignore[return-value]

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        await ended(platform, published.flow_id)
        ((_, why),) = await letters(platform, agent.name, 1)
    assert why["dlq-reason"] == "contract_refused" and "Told" in why["dlq-error"] and "Answered" in why["dlq-error"]


async def test_what_a_failed_attempt_would_have_emitted_never_leaves(platform: Platform) -> None:
    """Handlers decide; only the bus acts: an event that was made but not returned is nobody's."""
    agent = Agent(unique_agent())

    @agent.on(Asked, attempts_max=2)
    async def stumble(asked: Asked, context: Context) -> Told:
        told = Told(text=f"attempt {context.attempt}")
        if context.attempt == 1:
            raise ConnectionError("after the event was made")
        return told

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        assert (await ended(platform, published.flow_id)).state is State.COMMITTED

        async def told() -> list[Any]:
            return [record for record in await read_topic(platform, "delivery.told") if record.key == published.flow_id.encode()]

        (record,) = await eventually(told, bool)
    assert b"attempt 2" in (record.value or b"")
