"""Steps whose process dies under them: they are made again however often that happens, but for those that say `retry="never"`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from maypole.bus import Agent, Context, Event
from maypole.bus.testing import Choreography
from maypole.schemas.journal import StepAbandoned, StepCompensated, StepCompleted


class Ordered(Event, type="never.ordered"):
    number: int


@dataclass
class Bank:
    """What is outside. Who asks it gets no answer until `answers`."""

    asked: list[str] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def charge(self, key: str) -> None:
        self.asked.append(f"charge {key}")
        self.called.set()
        await self.answers.wait()


def charging(bank: Bank, *, never: bool = True) -> Agent:
    agent = Agent("charging")

    @agent.on(Ordered, retry="never" if never else None)
    async def charge(ordered: Ordered, context: Context) -> None:
        await bank.charge(context.idempotency_key)

    @charge.undo
    async def refund(ordered: Ordered, context: Context) -> None:
        bank.asked.append(f"refund {context.idempotency_key}")

    return agent


def paying_out(bank: Bank) -> Agent:
    agent = Agent("charging")

    @agent.on(Ordered, pivot=True, retry="never")
    async def pay_out(ordered: Ordered, context: Context) -> None:
        await bank.charge(context.idempotency_key)

    return agent


async def ended_after_a_kill(bank: Bank, agent: Agent) -> tuple[str, list[str], str]:
    """The agent dies while the bank is asked, and comes back when it answers: the flow's state, how its step ended, the step's key."""
    async with Choreography([agent], coordinator=True) as world:
        flow = await world.publish(Ordered(number=1))
        await bank.called.wait()
        await world.kill(agent)
        bank.answers.set()
        await world.start(agent)
        state = await flow.finished(timeout_seconds=7200)
        ends = [type(each).__name__ for each in flow.journal if isinstance(each, StepAbandoned | StepCompleted | StepCompensated)]
        keys = {each.step_id for each in flow.journal if isinstance(each, StepAbandoned | StepCompleted)}
    (key,) = keys
    return state, ends, key


async def test_a_step_that_was_cut_off_is_abandoned_and_its_flow_undone() -> None:
    bank = Bank()
    state, ends, key = await ended_after_a_kill(bank, charging(bank))
    assert (state, ends) == ("compensated", ["StepAbandoned", "StepCompensated"])
    assert bank.asked == [f"charge {key}", f"refund {key}"], "it was not charged again"


async def test_one_that_may_be_repeated_is_made_again_under_its_key() -> None:
    bank = Bank()
    state, ends, key = await ended_after_a_kill(bank, charging(bank, never=False))
    assert (state, ends) == ("committed", ["StepCompleted"])
    assert bank.asked == [f"charge {key}"] * 2


async def test_a_pivot_that_was_cut_off_leaves_its_flow_to_a_person() -> None:
    bank = Bank()
    state, ends, key = await ended_after_a_kill(bank, paying_out(bank))
    assert (state, ends) == ("stuck", ["StepAbandoned"])
    assert bank.asked == [f"charge {key}"]


@pytest.mark.parametrize("options", [{}, {"pure": True}, {"pivot": True}], ids=["recorded", "pure", "acting"])
async def test_an_event_that_ends_every_process_that_takes_it_comes_again_and_is_not_given_up(options: dict[str, Any]) -> None:
    agent, deaths, begun, harmless = Agent("perishing"), 5, asyncio.Event(), asyncio.Event()
    calls = list[int]()

    @agent.on(Ordered, attempts_max=2, **options)
    async def perish(ordered: Ordered) -> None:
        calls.append(ordered.number)
        begun.set()
        await harmless.wait()

    async with Choreography([agent], coordinator=True) as world:
        flow = await world.publish(Ordered(number=1))
        for _ in range(deaths):
            await begun.wait()
            begun.clear()
            await world.kill(agent)
            await world.start(agent)
        harmless.set()
        assert await flow.finished(timeout_seconds=7200) == "committed"
        assert flow.dead_letters == () and len(calls) == deaths + 1
