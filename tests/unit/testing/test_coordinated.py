"""A coordinator in a test's world: what a failed flow did is undone, and the test can see it."""

from __future__ import annotations

import asyncio

from maypole.bus import Agent, Event, Reject
from maypole.bus.testing import Choreography
from maypole.schemas.journal import Decision, StepCompensated
from maypole.services.cli.flow_histories import story_of
from maypole.services.operators import decide, request_abort
from maypole.services.saga import unsettled


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
    async with Choreography(agents(booked), coordinator=False) as world:
        assert await (await world.publish(Wanted(seats=3))).finished() == "aborting"
        assert booked == [3]


async def test_where_an_agent_can_undo_there_is_a_coordinator_without_asking_for_it() -> None:
    booked: list[int] = []
    async with Choreography(agents(booked)) as world:
        assert await (await world.publish(Wanted(seats=3))).finished() == "compensated"
        assert booked == []


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


class Paid(Event, type="coordinated.paid"):
    seats: int


async def test_a_pivot_that_was_killed_under_way_does_not_act_again_once_its_flow_is_cancelled() -> None:
    """Its agent comes back to the event and to the fence at the same time, and reads the fence later: the fence is obeyed first."""
    paid: list[int] = []
    paying = Agent("paying")

    @paying.on(Wanted)
    async def pay(wanted: Wanted) -> Paid:
        paid.append(wanted.seats)
        return Paid(seats=wanted.seats)

    @pay.undo
    async def refund(wanted: Wanted) -> None:
        paid.remove(wanted.seats)

    shipping, shipped, under_way = Agent("shipping"), list[int](), asyncio.Event()

    @shipping.on(Paid, pivot=True)
    async def ship(paid_: Paid) -> None:
        if not under_way.is_set():
            under_way.set()
            await asyncio.sleep(3600)
        shipped.append(paid_.seats)

    async with Choreography([paying, shipping], coordinator=True) as world:
        flow = await world.publish(Wanted(seats=3))
        await under_way.wait()
        await world.kill(shipping)
        platform, back_at = world._platform, world.now() + 300  # beyond the lease
        world.faults.arrive_after = lambda record: max(0.0, back_at + 5 - world.now()) if record.topic == "shipping.commands" else 0.0
        saga = (await story_of(platform, flow.flow_id)).saga
        await request_abort(platform, saga, "ada@home", "ordered twice")
        await asyncio.sleep(back_at - world.now())
        await world.start(shipping)
        assert await flow.finished(3600) == "stuck", "nobody knows what the pivot did, and it did not act after the cancel"
        assert (paid, shipped) == ([3], [])


class Shipped(Event, type="coordinated.shipped"):
    seats: int


async def test_what_a_step_that_a_person_went_past_leads_to_after_all_never_begins() -> None:
    """Past a pivot: the flow commits when the agent that follows has forbidden the step, and not before."""
    paying, shipping, thanking = Agent("paying"), Agent("shipping"), Agent("thanking")
    shipped, thanked = list[int](), list[int]()

    @paying.on(Wanted, pivot=True)
    async def pay(wanted: Wanted) -> Paid:
        return Paid(seats=wanted.seats)

    @shipping.on(Paid, retriable=True)
    async def ship(paid: Paid) -> Shipped:
        shipped.append(paid.seats)
        return Shipped(seats=paid.seats)

    @thanking.on(Shipped, retriable=True)
    async def thank(shipped_: Shipped) -> None:
        thanked.append(shipped_.seats)

    async with Choreography([paying, shipping, thanking], coordinator=True) as world:
        await world.stop(shipping)
        await world.stop(thanking)
        flow = await world.publish(Wanted(seats=3))

        async def decided(agent: str, decision: Decision) -> None:
            saga = (await story_of(world._platform, flow.flow_id)).saga
            (left,) = [step for step in unsettled(saga) if step.waiting is not None]
            assert left.agent == agent
            await decide(world._platform, saga, left.step_id, decision, "ada@home", "the parcel is lost")

        assert await flow.finished(7200) == "stuck"
        await decided("shipping", Decision.SKIP)
        assert flow.state == "forward_only"
        assert await flow.finished(7200) == "stuck", "nobody answers the fence, so it is for a person, too"
        await world.start(thanking)
        await decided("thanking", Decision.RETRY)
        assert await flow.finished() == "committed"
        await world.start(shipping)
        while flow.state != "reopened":  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.1)
        assert shipped == [3], "it has acted after all: somebody has to look at that"
        await asyncio.sleep(60)
        assert flow.of(Shipped) and thanked == []
