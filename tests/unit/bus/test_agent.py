"""Declaring agents: what works reads well, what cannot work is refused at the declaration with a name and a reason."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import pytest
from pydantic import Field

from maypole.bus import Agent, Context, Event, Kind, WrongDeclaration, at_least
from maypole.bus.subscription import Handler, Subscription, UndoWants


class Asked(Event, type="tests.asked"):
    text: str
    confidence: Annotated[float, Field(ge=0, le=1)] = 1.0


class Answered(Event, type="tests.answered"):
    text: str


class Refused(Event, type="tests.refused"):
    why: str


def test_a_handler_stays_a_plain_function() -> None:
    agent = Agent("echo")

    @agent.on(Asked)
    def answer(asked: Asked) -> Answered:
        return Answered(text=asked.text)

    assert answer(Asked(text="hello")) == Answered(text="hello")


def test_the_return_annotation_declares_the_outputs() -> None:
    agent = Agent("echo")

    @agent.on(Asked, require=at_least("confidence", 0.7), pure=True)
    async def answer(asked: Asked, context: Context) -> Answered | list[Refused] | None:
        return None

    (subscription,) = agent.subscriptions
    assert subscription.emits == (Answered, Refused) and subscription.kind is Kind.PURE
    assert subscription.wants_context and subscription.is_async
    assert agent.declaration()["subscriptions"][0]["require"] == [{"field": "confidence", "rule": "at_least", "value": 0.7}]


def test_a_topic_name_subscribes_without_a_class() -> None:
    agent = Agent("audit")

    @agent.on("tests.asked")
    def look(asked: object) -> None: ...

    assert agent.subscriptions[0].triggers[0].event_class is None


def _declare(**options: object) -> None:
    agent = Agent("broken")

    @agent.on(Asked, **options)  # type: ignore[arg-type]
    def answer(asked: Asked) -> Answered:
        return Answered(text="")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pure": True, "pivot": True}, "one of pure, pivot and retriable"),
        ({"optional": True, "pivot": True}, "pivot or optional"),
        ({"require": at_least("confidense", 0.7)}, "no field 'confidense'"),
        ({"timeout_seconds": 0}, "timeout_seconds > 0"),
        ({"attempts_max": 0}, "attempts_max >= 1"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], reason: str) -> None:
    with pytest.raises(WrongDeclaration, match=reason):
        _declare(**options)


@pytest.mark.parametrize("topic", ["", "Bad Topic!", "x.dlq", "maypole.journal", "nodots", "a." + "x" * 300])
def test_a_topic_that_cannot_exist_is_refused_by_name(topic: str) -> None:
    with pytest.raises(WrongDeclaration, match=r"event type|kept for|platform"):

        @Agent("broken").on(topic)
        def look(event: object) -> None: ...


def test_a_requirement_of_something_that_cannot_be_written_down_is_refused() -> None:
    with pytest.raises(TypeError, match="confidence"):
        at_least("confidence", Decimal("0.7"))  # type: ignore[arg-type]


def test_a_handler_without_return_annotation_is_refused() -> None:
    with pytest.raises(WrongDeclaration, match="return annotation"):

        @Agent("broken").on(Asked)
        def answer(asked: Asked):  # type: ignore[no-untyped-def]
            return None


def test_a_handler_that_returns_something_else_than_events_is_refused() -> None:
    with pytest.raises(WrongDeclaration, match="str"):

        @Agent("broken").on(Asked)
        def answer(asked: Asked) -> str:
            return ""


def test_a_handler_for_another_event_than_subscribed_is_refused() -> None:
    with pytest.raises(WrongDeclaration, match="Answered"):

        @Agent("broken").on(Asked)
        def answer(asked: Answered) -> None: ...


def test_a_handler_with_too_many_parameters_is_refused() -> None:
    with pytest.raises(WrongDeclaration, match="found 3"):

        @Agent("broken").on(Asked)
        def answer(asked: Asked, context: Context, more: int) -> None: ...


def test_one_event_has_one_handler_in_an_agent() -> None:
    agent = Agent("twice")

    @agent.on(Asked)
    def one(asked: Asked) -> None: ...

    with pytest.raises(WrongDeclaration, match="one"):

        @agent.on(Asked)
        def two(asked: Asked) -> None: ...


@pytest.mark.parametrize("name", ["", "Research", "1st", "maypole", "a.b", "x" * 64])
def test_a_name_that_cannot_name_topics_is_refused(name: str) -> None:
    with pytest.raises(WrongDeclaration):
        Agent(name)


def _undone_by(undo: Handler) -> Subscription:
    agent = Agent("undoing")

    @agent.on(Asked)
    def answer(asked: Asked) -> Answered:
        return Answered(text="")

    answer.undo(undo)
    return agent.subscriptions[0]


def test_an_optional_step_says_so_and_is_remembered_whatever_its_kind() -> None:
    agent = Agent("nice")

    @agent.on(Asked, optional=True, pure=True)
    def answer(asked: Asked) -> None: ...

    (declared,) = agent.declaration()["subscriptions"]
    assert declared["optional"] and agent.subscriptions[0].keeps_row, "or nobody could give it another chance"
    assert "optional" not in _undone_by(lambda asked: None).declaration(), "or every choreography would have another hash"


def test_an_undo_says_by_its_parameters_what_it_needs() -> None:
    def event_only(asked: Asked) -> None: ...

    def emitted_too(asked: Asked, answered: Answered) -> None: ...

    def context_too(asked: Asked, context: Context) -> None: ...

    def everything(asked: Asked, context: Context, answered: Answered) -> None: ...

    assert [_undone_by(undo).undo_wants for undo in (event_only, emitted_too, context_too, everything)] == [
        (), (UndoWants.EMITTED,), (UndoWants.CONTEXT,), (UndoWants.CONTEXT, UndoWants.EMITTED),
    ]  # fmt: skip
    assert _undone_by(event_only).kind is Kind.UNDO


def test_an_undo_that_asks_for_something_else_is_refused() -> None:
    def nothing() -> None: ...

    def twice(asked: Asked, answered: Answered, again: Answered) -> None: ...

    for undo in (nothing, twice):
        with pytest.raises(WrongDeclaration, match=r"expected \(event\), and after it \(emitted\), \(context: Context\) or both"):
            _undone_by(undo)
