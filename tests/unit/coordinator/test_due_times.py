"""What waits for an agent's answer waits for a fair chance of it, and nothing else waits."""

from __future__ import annotations

import pytest

from maypole.schemas.journal import Decision
from maypole.services.coordinator.due_times import ANSWER_MS, DueTimes
from maypole.services.saga import Ask
from tests.support.stories import Story, agent

STORY = Story("r.s", agent("pivot", "r.s", "p.q", kind="pivot"), agent("after", "p.q", kind="retriable"))
PATIENCE_MS = 10 * ANSWER_MS
HOUR_MS = 3_600_000


@pytest.mark.parametrize(("never_asked", "answer_ms"), [(False, ANSWER_MS), (True, PATIENCE_MS)])
def test_after_a_takeover_commands_are_due_later_and_their_flow_is_not(never_asked: bool, answer_ms: int) -> None:
    saga = STORY.told([STORY.started(), STORY.completed("pivot"), STORY.failed("after"), STORY.decided("after", Decision.RETRY)]).saga
    times = DueTimes(PATIENCE_MS)
    before = {deadline.scope: at_ms for at_ms, deadline in times.of(saga, never_asked=never_asked)}
    command = STORY.command("after", Ask.RETRY, generation=2)
    assert before == {STORY.flow: 1001, command: 4 + PATIENCE_MS}, "nobody asks yet"
    for now_ms in (HOUR_MS, 2 * HOUR_MS):  # the second time is none
        times.asked_from(now_ms)
        assert {deadline.scope: at_ms for at_ms, deadline in times.of(saga, never_asked=never_asked)} == {
            STORY.flow: 1001, command: HOUR_MS + answer_ms,
        }  # fmt: skip
    assert {deadline.due_ms for _, deadline in times.of(saga, never_asked=never_asked)} == {1001, 4 + PATIENCE_MS}, "it is told as it was"


def test_what_is_asked_long_after_the_takeover_has_its_own_time() -> None:
    telling = STORY.told([STORY.started(), STORY.completed("pivot"), STORY.failed("after")])
    telling.at_ms = HOUR_MS
    telling.tell(STORY.decided("after", Decision.RETRY))
    times = DueTimes(PATIENCE_MS)
    times.asked_from(0)
    assert (HOUR_MS + 1 + PATIENCE_MS) in [at_ms for at_ms, _ in times.of(telling.saga, never_asked=True)]
