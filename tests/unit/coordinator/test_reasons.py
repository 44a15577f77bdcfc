"""Why a flow ended as it did, in words that are true of it."""

from __future__ import annotations

import pytest

from maypole.schemas.event import Event
from maypole.schemas.journal import AbortRequested, Decision, Effect
from maypole.services.coordinator.reasons import reason_of
from tests.support.stories import Story, agent

STORY = Story("r.s", agent("needed", "r.s"), agent("nice", "r.s", optional=True))
PIVOT = Story("r.s", agent("point", "r.s", "a.b", kind="pivot"), agent("after", "a.b", kind="retriable"))
CANCELLED = AbortRequested(by="ada", why="ordered twice")
HALF_UNDONE = (STORY.completed("nice"), STORY.failed("needed"), STORY.undo_failed("nice", retryable=False))
EVERY = "every step that was expected has completed"


@pytest.mark.parametrize(
    ("story", "records", "reason"),
    [
        (STORY, (STORY.completed("nice"), STORY.completed("needed")), EVERY),
        (STORY, (STORY.failed("nice"), STORY.completed("needed")), f"{EVERY}, but for the step of nice on r.s, optional and failed"),
        (
            PIVOT,
            (PIVOT.completed("point"), PIVOT.failed("after", Effect.UNKNOWN), PIVOT.decided("after", Decision.SKIP)),
            f"{EVERY}; a person went on without the step of after on a.b",
        ),
        (
            PIVOT,
            (PIVOT.completed("point"), PIVOT.failed("after", Effect.UNKNOWN), PIVOT.decided("after", Decision.RESOLVED)),
            f"{EVERY}; for part of it a person vouches",
        ),
        (
            STORY,
            (*HALF_UNDONE, STORY.decided("nice", Decision.SKIP)),
            "the step of needed on r.s failed; nothing is left of it but what the step of nice on r.s did, as a person decided",
        ),
        (
            STORY,
            (*HALF_UNDONE, STORY.decided("nice", Decision.RESOLVED)),
            "the step of needed on r.s failed; nothing is left of it, for part of which a person vouches",
        ),
        (STORY, (STORY.failed("nice"), STORY.failed("needed")), "the step of needed on r.s failed; nothing is left of it"),
        (
            STORY,
            (STORY.failed("nice"), STORY.late(STORY.flow), STORY.fenced("needed")),
            "its deadline passed; nothing is left of it",
        ),
        (
            STORY,
            (STORY.completed("nice"), CANCELLED, STORY.fenced("needed"), STORY.undone("nice")),
            "cancelled by ada: ordered twice; nothing is left of it",
        ),
        (
            STORY,
            (STORY.completed("nice"), STORY.late(STORY.ids["needed"]), STORY.fenced("needed"), STORY.undone("nice")),
            "the step of needed on r.s did not end in time; nothing is left of it",
        ),
    ],
)
def test_the_reason_names_what_decided_and_what_is_missing(story: Story, records: tuple[Event, ...], reason: str) -> None:
    telling = story.told([story.started(), *records])
    assert telling.saga.state.is_end
    assert reason_of(telling.saga) == reason
