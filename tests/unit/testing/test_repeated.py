"""What `pure=True` promises is put to the test, and a test that would judge nothing is no test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from maypole.bus import Agent, Event, Reject, RetryLater, WrongDeclaration, at_least
from maypole.bus.testing import Choreography, NotPure, SimulationFailed, World, simulate


class Asked(Event, type="repeated.asked"):
    number: int
    name: str = ""


class Answered(Event, type="repeated.answered"):
    number: int


def answering(numbers: Iterator[int] | None, *, pure: bool = True, blocking: bool = False) -> Agent:
    agent = Agent("answering")

    def answer(asked: Asked) -> Answered:
        return Answered(number=asked.number if numbers is None else next(numbers))

    async def answer_async(asked: Asked) -> Answered:
        return answer(asked)

    agent.on(Asked, pure=pure)(answer if blocking else answer_async)
    return agent


async def one_question(world: World) -> None:
    await world.publish(Asked(number=1))


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_pure_step_that_answers_otherwise_the_second_time_is_told(blocking: bool) -> None:
    async with Choreography([answering(count(), blocking=blocking)], check_pure=True) as world:
        with pytest.raises(NotPure, match=r"answering on repeated.asked emitted Answered\(number=0\), and Answered\(number=1\)"):
            await (await world.publish(Asked(number=1))).finished()


@pytest.mark.parametrize(("numbers", "pure"), [(None, True), (count(), False)])
async def test_who_keeps_the_promise_or_makes_none_is_left_alone(numbers: Iterator[int] | None, pure: bool) -> None:
    async with Choreography([answering(numbers, pure=pure)], check_pure=True) as world:
        flow = await world.publish(Asked(number=0))
        assert await flow.finished() == "committed"
        assert flow.of(Answered) == (Answered(number=0),)


def test_a_simulation_finds_it_too() -> None:
    with pytest.raises(SimulationFailed, match=r"not pure: answering on repeated\.asked"):
        simulate([answering(count())], one_question, seeds=[0])
    simulate([answering(None)], one_question, seeds=[0])


def test_a_simulation_that_would_judge_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one seed"):
        simulate([answering(None)], one_question, seeds=[])
    with pytest.raises(ValueError, match="expected a scenario that publishes something"):
        simulate([answering(None)], lambda world: None, seeds=[0])


async def test_what_is_no_event_is_not_published() -> None:
    async with Choreography([answering(None)]) as world:
        with pytest.raises(TypeError, match="expected an event, an instance of a class"):
            await world.publish({"number": 1})  # type: ignore[arg-type]


def test_a_handler_that_yields_is_refused_where_it_is_declared() -> None:
    agent = Agent("yielding")

    def lazily(asked: Asked) -> Iterator[Answered]:
        yield Answered(number=1)

    lazily.__annotations__["return"] = list[Answered]  # as somebody writes it who runs no type checker

    with pytest.raises(WrongDeclaration, match="it yields"):
        agent.on(Asked)(lazily)


def test_only_numbers_are_compared() -> None:
    with pytest.raises(TypeError, match="number: expected a number to compare with, found 'abc'"):
        at_least("number", "abc")  # type: ignore[arg-type]

    async def answer(asked: Asked) -> None: ...

    with pytest.raises(WrongDeclaration, match="name is no number"):
        Agent("comparing").on(Asked, require=at_least("name", 1))(answer)


@pytest.mark.parametrize("after", ["x", None, -1, float("nan")])
def test_a_time_that_is_none_is_refused(after: Any) -> None:
    with pytest.raises(ValueError, match="expected seconds from 0 up"):
        RetryLater(after)


def test_a_refusal_without_a_reason_says_so() -> None:
    made: Callable[[], Reject] = Reject
    assert str(made()) == "the handler gave no reason"
    assert str(Reject("because")) == "because"
