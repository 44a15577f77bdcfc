"""An attempt acts no longer than its lease: whoever takes over waits for that time, and can call nothing back."""

from __future__ import annotations

from pathlib import Path

import pytest

from maypole.bus import Agent, Context, Event
from maypole.bus.lease import Lease, LeaseOver
from maypole.bus.testing import Choreography
from tests.unit.services.steps import context as a_context


class Charged(Event, type="leases.charged"):
    number: int


class StandingStill:
    """A handler whose process stands still in its first attempt, for longer than anybody waits for it, and then acts."""

    def __init__(self, seconds: float) -> None:
        self.acted: list[int] = []
        self.world: Choreography | None = None
        self._seconds = seconds

    def stand_still(self, attempt: int) -> None:
        assert self.world is not None
        if attempt == 1:
            self.world._clock.elapsed += self._seconds


async def acting(still: StandingStill, agent: Agent) -> None:
    async with Choreography([agent]) as still.world:
        flow = await still.world.publish(Charged(number=1))
        assert await flow.finished(timeout_seconds=3600) == "committed"


def by_key(still: StandingStill) -> Agent:
    agent = Agent("charging")

    @agent.on(Charged, pivot=True)
    async def charge(charged: Charged, context: Context) -> None:
        still.stand_still(context.attempt)
        assert context.idempotency_key == context.step_id
        still.acted.append(context.attempt)

    return agent


def once(still: StandingStill) -> Agent:
    agent = Agent("charging")

    @agent.on(Charged, pivot=True)
    async def charge(charged: Charged, context: Context) -> None:
        still.stand_still(context.attempt)
        await context.once("charge", lambda: still.acted.append(context.attempt))

    return agent


def in_a_thread(still: StandingStill) -> Agent:
    agent = Agent("charging")

    @agent.on(Charged, pivot=True)
    def charge(charged: Charged, context: Context) -> None:
        still.stand_still(context.attempt)
        context.once("charge", lambda: still.acted.append(context.attempt))

    return agent


@pytest.mark.parametrize("made", [by_key, once, in_a_thread])
async def test_an_attempt_that_stood_still_beyond_its_lease_does_not_act_any_more(made: object) -> None:
    still = StandingStill(400)
    await acting(still, made(still))  # type: ignore[operator]
    assert still.acted == [2]


@pytest.mark.parametrize("made", [by_key, once, in_a_thread])
async def test_an_attempt_that_stood_still_and_has_time_left_acts(made: object) -> None:
    still = StandingStill(290)
    await acting(still, made(still))  # type: ignore[operator]
    assert still.acted == [1]


async def test_a_name_that_no_store_could_keep_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    calls = list[str]()
    with pytest.raises(ValueError, match="expected a name of at most 1024 bytes in UTF-8, found 1026"):
        a_context(tmp_path).once("事" * 342, lambda: calls.append("charged"))
    assert calls == []


async def test_what_was_done_once_is_told_also_when_the_time_to_act_is_over(tmp_path: Path) -> None:
    clock, calls = [1000], list[str]()
    context = a_context(tmp_path)
    leased = a_context(tmp_path, lease=Lease(2000, lambda: clock[0]), memos=context.memos)
    await leased.once("before", lambda: calls.append("before"))
    clock[0] = 2000
    await leased.once("before", lambda: calls.append("again"))
    with pytest.raises(LeaseOver, match=r"context\.once\('after', \.\.\.\): expected an attempt that may still act.* 0 ms ago"):
        await leased.once("after", lambda: calls.append("after"))
    with pytest.raises(LeaseOver, match=r"context\.idempotency_key"):
        _ = leased.idempotency_key
    assert calls == ["before"] and context.idempotency_key == "step-1", "without a lease nobody else would act"
