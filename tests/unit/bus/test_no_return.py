"""Which choreographies are refused because a flow of them could be left half done, and by which path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from maypole.bus.choreography import Choreography, derive_choreography
from maypole.bus.no_return import NoWayBack, check_way_back
from tests.support.stories import agent


def of(*agents: Mapping[str, Any]) -> Choreography:
    return derive_choreography("r.s", agents)


ACCEPTED = {
    "everything undoable": of(agent("one", "r.s", "a.b"), agent("two", "a.b", kind="events"), agent("three", "a.b")),
    "undo, pivot, retriable": of(
        agent("one", "r.s", "a.b"), agent("pivot", "a.b", "c.d", kind="pivot"), agent("after", "c.d", kind="retriable")
    ),
    "harmless steps around a pivot": of(
        agent("pivot", "r.s", "a.b", kind="pivot"), agent("beside", "r.s", kind="pure"), agent("after", "a.b", kind="events")
    ),
    "a join needs what came before the pivot": of(
        agent("one", "r.s", "a.b"), agent("two", "r.s", "c.d"), agent("pivot", "a.b+c.d", kind="pivot")
    ),
    "a loop of undoable steps": of(agent("ping", "r.s", "a.b"), agent("pong", "a.b", "r.s")),
}


@pytest.mark.parametrize("choreography", ACCEPTED.values(), ids=ACCEPTED)
def test_what_can_be_finished_or_taken_back_is_accepted(choreography: Choreography) -> None:
    check_way_back(choreography)


REFUSED = {
    "retriable without a pivot": (
        of(agent("one", "r.s", "a.b"), agent("for-good", "a.b", kind="retriable")),
        "for-good on a.b is retriable, but may act before any pivot.*r.s -> one on r.s -> for-good on a.b",
    ),
    "undo after the pivot": (
        of(agent("pivot", "r.s", "a.b", kind="pivot"), agent("between", "a.b", "c.d", kind="pure"), agent("late", "c.d")),
        "late on c.d acts after the pivot pivot on r.s.*pivot on r.s -> between on a.b -> late on c.d",
    ),
    "undo beside the pivot": (
        of(agent("one", "r.s", "a.b", kind="pure"), agent("pivot", "a.b", kind="pivot"), agent("beside", "r.s")),
        "beside on r.s may still act when the pivot pivot on a.b does.*r.s -> one on r.s -> pivot on a.b",
    ),
    "undo on one of two ways to the pivot": (
        of(agent("slow", "r.s", "a.b"), agent("fast", "r.s", "a.b", kind="pure"), agent("pivot", "a.b", kind="pivot")),
        "slow on r.s may still act when the pivot",
    ),
    "two pivots side by side": (
        of(agent("pivot", "r.s", kind="pivot"), agent("other", "r.s", kind="pivot")),
        "may still act when the pivot",
    ),
    "a pivot in a loop": (
        of(agent("pivot", "r.s", "a.b", kind="pivot"), agent("again", "a.b", "r.s", kind="pure")),
        "pivot on r.s acts after the pivot pivot on r.s and is pivot",
    ),
    "optional and pure, and others follow": (
        of(agent("nice", "r.s", "a.b", kind="pure", optional=True), agent("next", "a.b", kind="events")),
        "nice on r.s is optional and pure.*r.s -> nice on r.s",
    ),
    "retriable on a way around the pivot": (
        of(agent("pivot", "r.s", "a.b", kind="pivot"), agent("hasty", "r.s", "a.b", kind="pure"), agent("after", "a.b", kind="retriable")),
        "after on a.b is retriable, but may act before any pivot.*r.s -> hasty on r.s -> after on a.b",
    ),
}


@pytest.mark.parametrize(("choreography", "why"), REFUSED.values(), ids=REFUSED)
def test_what_could_be_left_half_done_is_refused_with_the_path(choreography: Choreography, why: str) -> None:
    with pytest.raises(NoWayBack, match=why):
        check_way_back(choreography)
