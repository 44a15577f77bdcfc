"""What waits for an agent's answer waits for a fair chance of it, and nothing else waits."""

from __future__ import annotations

import pytest

from maypole.bus.recording import CLOCK_SKEW_MS, LEASE_MARGIN_MS
from maypole.schemas.journal import Decision
from maypole.services.coordinator.due_times import ANSWER_MS, DueTimes
from maypole.services.saga import Ask
from tests.support.stories import Story, agent

LEASE_SECONDS = 3600.0
STORY = Story("r.s", agent("pivot", "r.s", "p.q", kind="pivot"), agent("after", "p.q", kind="retriable"))
PATIENCE_MS = 10 * ANSWER_MS
HOUR_MS = 3_600_000


@pytest.mark.parametrize(("never_asked", "answer_ms"), [(False, ANSWER_MS), (True, PATIENCE_MS)])
def test_after_a_takeover_commands_are_due_later_and_their_flow_is_not(never_asked: bool, answer_ms: int) -> None:
    saga = STORY.told([STORY.started(), STORY.completed("pivot"), STORY.failed("after"), STORY.decided("after", Decision.RETRY)]).saga
    times = DueTimes(PATIENCE_MS, lambda *_: 0)
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
    times = DueTimes(PATIENCE_MS, lambda *_: 0)
    times.asked_from(0)
    assert (HOUR_MS + 1 + PATIENCE_MS) in [at_ms for at_ms, _ in times.of(telling.saga, never_asked=True)]


def test_an_agent_is_waited_for_as_long_as_an_attempt_may_take_before_it_can_answer() -> None:
    """An undo waits for the lease of an attempt that was cut off, and the answer to a retry is the end of the attempt."""
    declared = {("one", "r.s"): LEASE_SECONDS, ("two", "r.s"): LEASE_SECONDS, ("after", "p.q"): LEASE_SECONDS}
    times = DueTimes(PATIENCE_MS, lambda *of: declared.get(of, 0.0))
    undone = Story("r.s", agent("one", "r.s"), agent("two", "r.s"))
    cut_off = undone.told([undone.started(), undone.late(undone.flow), undone.abandoned("one")]).saga
    due = {deadline.scope: at_ms for at_ms, deadline in times.of(cut_off, never_asked=False)}
    margin_ms = LEASE_MARGIN_MS + CLOCK_SKEW_MS
    assert due == {
        undone.command("one", Ask.COMPENSATE): 3 + HOUR_MS + margin_ms,
        undone.command("two", Ask.FENCE): 2 + PATIENCE_MS,
    }, "a fence waits for nothing"
    again = STORY.told([STORY.started(), STORY.completed("pivot"), STORY.failed("after"), STORY.decided("after", Decision.RETRY)]).saga
    retry = STORY.command("after", Ask.RETRY, generation=2)
    assert (4 + HOUR_MS + margin_ms) in [at_ms for at_ms, deadline in times.of(again, never_asked=False) if deadline.scope == retry]
    times.asked_from(HOUR_MS)
    assert (2 * HOUR_MS + margin_ms) in [at_ms for at_ms, deadline in times.of(again, never_asked=True) if deadline.scope == retry]


def test_the_undo_of_a_step_that_ended_well_waits_for_no_attempt() -> None:
    story = Story("r.s", agent("one", "r.s", "a.b"), agent("two", "a.b"))
    saga = story.told([story.started(), story.completed("one"), story.failed("two")]).saga
    times = DueTimes(PATIENCE_MS, lambda *_: LEASE_SECONDS)
    assert {deadline.scope: at_ms for at_ms, deadline in times.of(saga, never_asked=False)} == {
        story.command("one", Ask.COMPENSATE): 3 + PATIENCE_MS
    }


def test_patience_that_is_longer_than_an_attempt_stays_as_it_is() -> None:
    saga = STORY.told([STORY.started(), STORY.completed("pivot"), STORY.failed("after"), STORY.decided("after", Decision.RETRY)]).saga
    times = DueTimes(2 * HOUR_MS, lambda *_: LEASE_SECONDS)
    assert (4 + 2 * HOUR_MS) in [at_ms for at_ms, _ in times.of(saga, never_asked=False)]
