"""Declaring joins: what works reads well, what cannot work is refused with a name and a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from maypole.bus import Agent, Context, Event, Kind, Reject, WrongDeclaration, at_least
from maypole.bus.choreography import derive_choreography
from maypole.bus.joining import all_of
from maypole.services.cli.failing import failing


class Score(Event, type="tests.score"):
    points: int


class Income(Event, type="tests.income"):
    yearly: int


class Decided(Event, type="tests.decided"):
    granted: bool


class Referred(Event, type="tests.referred"):
    missing: int


async def decide(score: Score, income: Income, context: Context) -> Decided:
    return Decided(granted=score.points > 300 and income.yearly > 0)


def decision(**options: Any) -> Agent:
    agent = Agent("decision")
    agent.on(all_of(Score, Income), **options)(decide)
    return agent


def test_a_join_takes_one_event_for_each_part_in_the_order_it_names_them() -> None:
    (subscription,) = decision(within="1.5s").subscriptions
    assert subscription.event_types == ("tests.score", "tests.income")
    assert subscription.is_join and subscription.wants_context and subscription.within_ms == 1500


def test_another_order_of_the_parts_is_the_same_subscription() -> None:
    agent = Agent("decision")

    @agent.on(all_of(Score, Income))
    def one(score: Score, income: Income) -> None: ...

    other = Agent("decision")

    @other.on(all_of(Income, Score))
    def two(income: Income, score: Score) -> None: ...

    assert agent.subscriptions[0].name == other.subscriptions[0].name == "tests.income+tests.score"
    assert agent.declaration() == other.declaration()


def test_the_declaration_tells_parts_time_and_what_is_required_of_each_part() -> None:
    [declared] = decision(within="30s", require={Score: at_least("points", 300)}).declaration()["subscriptions"]
    assert declared["on"] == ["tests.income", "tests.score"] and declared["within_ms"] == 30_000
    assert declared["require"] == [{"on": "tests.score", "field": "points", "rule": "at_least", "value": 300}]


def test_the_choreography_and_its_hash_carry_the_join_and_its_time() -> None:
    scoring = {"name": "s", "subscriptions": [{"on": "tests.asked", "emits": ["tests.score"], "kind": "events"}]}
    income = {"name": "i", "subscriptions": [{"on": "tests.asked", "emits": ["tests.income"], "kind": "events"}]}
    hashes = set()
    for options in ({}, {"within": "30s"}, {"within": "31s"}):
        choreography = derive_choreography("tests.asked", [scoring, income, decision(**options).declaration()])
        [reaction] = [each for each in choreography.reactions if each.agent == "decision"]
        assert reaction.is_join and reaction.subscription == "tests.income+tests.score"
        hashes.add(choreography.hash)
    assert len(hashes) == 3


def test_what_an_expiry_emits_is_among_what_the_agent_emits() -> None:
    agent = Agent("decision")

    @agent.on(all_of(Score, Income), within="30s")
    async def decide(score: Score, income: Income) -> Decided:
        return Decided(granted=True)

    @decide.expired
    async def refer(score: Score | None, income: Income | None) -> Referred:
        return Referred(missing=(score is None) + (income is None))

    @decide.undo
    async def forget(score: Score | None, income: Income | None, emitted: Decided) -> None: ...

    (subscription,) = agent.subscriptions
    assert subscription.emits == (Decided, Referred) and subscription.kind is Kind.UNDO
    assert subscription.expiry is not None and subscription.expiry.kind is Kind.UNDO and subscription.expiry.handler is refer


def test_a_join_can_be_shown_failing() -> None:
    agent = decision(within="30s", require={Score: at_least("points", 300)})
    broken = failing(agent)
    assert broken.declaration() == agent.declaration()
    with pytest.raises(Reject):
        broken.subscriptions[0].handler(Score(points=1), Income(yearly=1)).send(None)  # type: ignore[attr-defined]


def _on(*events: Any, handler: Callable[..., Any] = decide, **options: Any) -> None:
    Agent("broken").on(all_of(*events), **options)(handler)


def _without_income(score: Score, context: Context) -> None: ...


def _turned_round(income: Income, score: Score) -> None: ...


@pytest.mark.parametrize(
    ("events", "options", "reason"),
    [
        ((Score,), {}, "at least two events"),
        ((), {}, "at least two events"),
        ((Score, Score), {}, "tests.score twice"),
        ((Score, "tests.score"), {}, "tests.score twice"),
        ((Score, int), {}, "found <class 'int'>"),
        ((Score, "maypole.flow.ended"), {}, "events of one flow"),
        ((Score, Income), {"within": "0s"}, "from 1ms to 30 days, found '0s'"),
        ((Score, Income), {"within": "soon"}, "found 'soon'"),
        ((Score, Income), {"within": "-3s"}, "found '-3s'"),
        ((Score, Income), {"within": "31000h"}, "to 30 days"),
        ((Score, Income), {"within": 30}, "found 30"),
        ((Score, Income), {"require": at_least("points", 3)}, "by part"),
        ((Score, Income), {"require": {Score: at_least("yearly", 3)}}, "no field 'yearly'"),
        ((Score, Income), {"require": {Decided: at_least("granted", 3)}}, "no part of its all_of"),
        ((Score, Income), {"handler": _without_income}, "a parameter for tests.income before the context"),
        ((Score, Income), {"handler": _turned_round}, "subscribes to tests.score but its parameter income is a Income"),
        ((Score, Income, Decided, Referred), {}, r"\(tests_score, tests_income, tests_decided, tests_referred\)"),
    ],
)
def test_a_join_that_cannot_work_is_refused(events: tuple[Any, ...], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(WrongDeclaration, match=reason):
        _on(*events, **options)


def test_a_time_beside_one_event_is_refused() -> None:
    with pytest.raises(WrongDeclaration, match="beside one event"):
        Agent("broken").on(Score, within="30s")(lambda score: None)


def test_requirements_by_part_of_one_event_are_refused() -> None:
    with pytest.raises(WrongDeclaration, match="only a join"):
        Agent("broken").on(Score, require={Score: at_least("points", 1)})(lambda score: None)


@pytest.mark.parametrize("first", [Score, all_of(Score, Decided)])
def test_an_event_is_handled_once_by_one_agent_also_as_part_of_a_join(first: Any) -> None:
    agent = Agent("broken")

    def one(score: Score) -> None: ...

    def two(score: Score, decided: Decided) -> None: ...

    agent.on(first)(one if first is Score else two)
    with pytest.raises(WrongDeclaration, match=r"tests\.score already has the handler"):
        agent.on(all_of(Income, Score))(_turned_round)


def _expiring(handler: Callable[..., Any], **options: Any) -> None:
    agent = Agent("broken")
    reaction = agent.on(all_of(Score, Income), **options)(decide)
    reaction.expired(handler)


def _sure(score: Score, income: Income) -> None: ...


def _unsure(score: Score | None, income: Income | None) -> None: ...


def _silent(score: Score | None, income: Income | None):  # type: ignore[no-untyped-def]
    ...


@pytest.mark.parametrize(
    ("handler", "options", "reason"),
    [
        (_unsure, {}, "found none that could expire"),
        (_sure, {"within": "1s"}, "expected score to be None where tests.score has not come"),
        (_silent, {"within": "1s"}, "return annotation"),
    ],
)
def test_an_expiry_that_cannot_work_is_refused(handler: Callable[..., Any], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(WrongDeclaration, match=reason):
        _expiring(handler, **options)
