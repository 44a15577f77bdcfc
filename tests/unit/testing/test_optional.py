"""Optional steps: a flow goes on without one that failed and changed nothing, and while it runs the step may get another chance."""

from __future__ import annotations

import asyncio

import pytest

from maypole.bus import Agent, Event, Reject
from maypole.bus.testing import Choreography
from maypole.schemas.journal import Decision, StepCompensated, StepFailed
from maypole.services.cli.flow_histories import story_of
from maypole.services.cli.flow_story import StepStory
from maypole.services.operators import decide


class Ordered(Event, type="optional.ordered"):
    number: int


class Greeted(Event, type="optional.greeted"):
    number: int


class Cast:
    """*needed* ends its flow when it is let go; *nice* is optional, and fails as often as it is told to."""

    def __init__(self, fails: int, *, pure: bool = False, acts: bool = False) -> None:
        self.fails = fails
        self.greeted: list[int] = []
        self.go = asyncio.Event()
        self.needed, self.nice = Agent("needed"), Agent("nice")

        @self.needed.on(Ordered)
        async def do(ordered: Ordered) -> None:
            await self.go.wait()

        @self.nice.on(Ordered, optional=True, pure=pure)
        async def greet(ordered: Ordered) -> Greeted:
            if self.fails:
                self.fails -= 1
                raise Reject("nobody is in")
            self.greeted.append(ordered.number)
            return Greeted(number=ordered.number)

        if acts:

            @greet.undo
            async def take_back(ordered: Ordered) -> None: ...

    async def nice_step(self, world: Choreography, flow: str) -> StepStory:
        return next(step for step in (await story_of(world._platform, flow)).steps() if step.agent == "nice")


async def test_a_flow_goes_on_without_an_optional_step_that_failed() -> None:
    cast = Cast(fails=1)
    cast.go.set()
    async with Choreography([cast.needed, cast.nice]) as world:
        flow = await world.publish(Ordered(number=1))
        assert await flow.finished() == "committed"
        assert [letter.reason for letter in world.dead_letters("nice")] == ["rejected"], "and nothing is passed over in silence"
        assert {step.agent: step.state for step in flow.steps} == {"needed": "completed", "nice": "failed"}


async def test_one_that_may_have_acted_is_undone_with_its_flow() -> None:
    cast = Cast(fails=1, acts=True)
    cast.go.set()
    async with Choreography([cast.needed, cast.nice]) as world:
        flow = await world.publish(Ordered(number=1))
        assert await flow.finished() == "compensated"
        assert any(isinstance(record, StepCompensated) for record in flow.journal)


@pytest.mark.parametrize("pure", [False, True], ids=["events", "pure"])
async def test_while_its_flow_runs_it_may_get_another_chance_and_then_the_flow_waits_for_it(pure: bool) -> None:
    cast = Cast(fails=2, pure=pure)
    async with Choreography([cast.needed, cast.nice], coordinator=True) as world:
        flow = await world.publish(Ordered(number=1))
        for failures in (1, 2):
            while sum(isinstance(record, StepFailed) for record in flow.journal) < failures:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(1)
            story, step = await story_of(world._platform, flow.flow_id), await cast.nice_step(world, flow.flow_id)
            assert (flow.state, step.choices) == ("running", (Decision.RETRY,))
            await decide(world._platform, story.saga, step.step_id, Decision.RETRY, "ada", "they are in again")
            assert [step.agent for step in flow.steps if step.state == "owed"] == ["needed", "nice"]
        while not cast.greeted:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(1)
        assert flow.state == "running"
        cast.go.set()
        assert await flow.finished() == "committed"
        assert {step.agent: step.state for step in flow.steps} == {"needed": "completed", "nice": "completed"}
        assert (await cast.nice_step(world, flow.flow_id)).choices == ()
