"""A coordinator in a test's world: what a failed flow did is undone, and the test can see it."""

from __future__ import annotations

import asyncio

from maypole.bus import Agent, Event, Reject
from maypole.bus.testing import Choreography
from maypole.schemas.journal import StepCompensated


class Wanted(Event, type="coordinated.wanted"):
    seats: int


class Booked(Event, type="coordinated.booked"):
    seats: int


def agents(booked: list[int]) -> list[Agent]:
    booking, paying = Agent("booking"), Agent("paying")

    @booking.on(Wanted)
    async def book(wanted: Wanted) -> Booked:
        booked.append(wanted.seats)
        return Booked(seats=wanted.seats)

    @book.undo
    async def cancel(wanted: Wanted) -> None:
        booked.remove(wanted.seats)

    @paying.on(Booked)
    async def pay(booked_: Booked) -> None:
        if booked_.seats > 2:
            raise Reject("too dear", acted=False)

    return [booking, paying]


async def test_what_a_failed_flow_did_is_undone() -> None:
    booked: list[int] = []
    async with Choreography(agents(booked), coordinator=True) as world:
        dear, cheap = await world.publish(Wanted(seats=3)), await world.publish(Wanted(seats=1))
        assert await dear.finished() == "compensated"
        assert await cheap.finished() == "committed"
        assert booked == [1]
        assert any(isinstance(record, StepCompensated) for record in dear.journal)


async def test_without_a_coordinator_the_flow_rests_where_it_failed() -> None:
    booked: list[int] = []
    async with Choreography(agents(booked)) as world:
        assert await (await world.publish(Wanted(seats=3))).finished() == "aborting"
        assert booked == [3]


async def test_an_agent_that_is_gone_leaves_the_flow_stuck() -> None:
    booked: list[int] = []
    booking, paying = agents(booked)
    async with Choreography([booking, paying], coordinator=True) as world:
        await world.stop(paying)
        flow = await world.publish(Wanted(seats=3))
        while not flow.of(Booked):  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.1)
        await world.stop(booking)
        await world.start(paying)
        assert await flow.finished(3600) == "stuck"
        assert booked == [3]
