"""Joins whose parts come more than once: the agent pairs them as they arrive, and whoever folds the journal believes it."""

from __future__ import annotations

import asyncio

import pytest

from maypole.bus import Agent, Event, Reject, all_of
from maypole.bus.testing import Choreography
from maypole.services.saga.reach import expected
from tests.support.stories import Story, agent


class Asked(Event, type="pairs.asked"):
    ends: str = "well"


class Left(Event, type="pairs.left"):
    by: str


class Right(Event, type="pairs.right"):
    by: str


class Both(Event, type="pairs.both"):
    left: str
    right: str


def pairing(rights: int, undone: list[str]) -> list[Agent]:
    """Two agents that make one type, of which the one that comes first in the order of cause is the slower."""
    slow, quick, right, both = Agent("a_slow"), Agent("b_quick"), Agent("c_right"), Agent("d_both")

    @slow.on(Asked)
    async def take_time(asked: Asked) -> Left:
        await asyncio.sleep(5)
        if asked.ends == "badly":
            raise Reject("no")
        return Left(by="slow")

    @quick.on(Asked)
    async def hurry(asked: Asked) -> Left:
        return Left(by="quick")

    @hurry.undo
    async def take_back(asked: Asked) -> None:
        undone.append("quick")

    @right.on(Asked)
    async def give(asked: Asked) -> list[Right]:
        return [Right(by=str(number)) for number in range(rights)]

    @both.on(all_of(Left, Right))
    async def pair(left: Left, right: Right) -> Both:
        return Both(left=left.by, right=right.by)

    @pair.undo
    async def part(left: Left, right: Right) -> None:
        undone.append(f"{left.by} {right.by}")

    return [slow, quick, right, both]


@pytest.mark.parametrize("rights", [1, 2])
async def test_a_flow_is_done_when_its_join_has_run_as_often_as_it_can_whichever_parts_met(rights: int) -> None:
    async with Choreography(pairing(rights, [])) as world:
        flow = await world.publish(Asked())
        assert await flow.finished() == "committed"
        met = [each.event.left for each in flow.events if isinstance(each.event, Both)]
        assert met == (["quick"] if rights == 1 else ["quick", "slow"])


async def test_what_a_join_made_of_its_parts_is_undone_before_they_are() -> None:
    undone: list[str] = []
    async with Choreography(pairing(2, undone)) as world:
        flow = await world.publish(Asked(ends="badly"))
        assert await flow.finished() == "compensated"
    assert undone == ["quick 0", "quick"]


def test_every_round_that_the_parts_are_enough_for_is_owed() -> None:
    story = Story("r.s", agent("give", "r.s", "a.b", "c.d"), agent("both", "a.b+c.d"), agent("also", "a.b+c.d"))
    telling = story.told([story.started(), story.completed("give", "a.b", "c.d", "c.d", "a.b", "a.b")])
    owed = [place.reaction.agent for place in expected(telling.saga).values()]
    assert sorted(owed) == ["also", "also", "both", "both", "give"]
