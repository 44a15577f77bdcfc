"""What the saga engine decides, record by record."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from maypole.schemas.journal import AbortRequested, DeadlineFired, Decision, Effect
from maypole.services.saga import Ask, State, UnknownPin, Violation, Waiting, choices, outstanding, step, unsettled
from maypole.services.saga.deadlines import Deadline, deadlines
from tests.support.stories import Story, Telling, agent

CHAIN = Story("r.s", agent("one", "r.s", "a.b"), agent("two", "a.b", "c.d"), agent("three", "c.d"))
FAN = Story("r.s", agent("left", "r.s"), agent("right", "r.s"))
CANCELLED = AbortRequested(by="somebody", why="no longer needed")


def aborted_chain() -> Telling:
    """one and two are done, three failed without effect."""
    return CHAIN.told([CHAIN.started(), CHAIN.completed("one"), CHAIN.completed("two"), CHAIN.failed("three")])


def test_steps_are_undone_from_the_last_to_the_first() -> None:
    telling = CHAIN.told([CHAIN.started(), CHAIN.completed("one"), CHAIN.completed("two")])
    assert telling.tell(CHAIN.failed("three")) == ["compensate two"]
    assert telling.tell(CHAIN.undone("two")) == ["compensate one"]
    assert telling.state == "aborting"
    assert telling.tell(CHAIN.undone("one")) == [] and telling.state == "compensated"


def test_a_step_that_failed_with_an_effect_is_undone_itself() -> None:
    telling = CHAIN.told([CHAIN.started(), CHAIN.completed("one"), CHAIN.completed("two")])
    assert telling.tell(CHAIN.failed("three", Effect.UNKNOWN)) == ["compensate three"]


def test_what_may_still_run_is_fenced_before_anything_that_it_depends_on_is_undone() -> None:
    telling = CHAIN.told([CHAIN.started(), CHAIN.completed("one")])
    assert telling.tell(CANCELLED) == ["fence two"]
    assert telling.tell(CHAIN.completed("two")) == ["fence three"]
    assert telling.tell(CHAIN.fenced("three")) == ["compensate two"]


def test_siblings_are_undone_side_by_side() -> None:
    telling = FAN.told([FAN.started(), FAN.completed("left"), FAN.completed("right")])
    assert telling.state == "committed"
    story = Story("r.s", agent("left", "r.s"), agent("right", "r.s"), agent("bad", "r.s"))
    telling = story.told([story.started(), story.completed("left"), story.completed("right")])
    assert telling.tell(story.failed("bad")) == ["compensate left", "compensate right"]


def test_commands_are_the_same_however_often_they_are_asked_for() -> None:
    telling = aborted_chain()
    assert [command.id for command in outstanding(telling.saga)] == [telling.commands[-1].id]
    assert telling.tell(CHAIN.failed("three"), CHAIN.completed("two")) == []


def test_a_step_without_effect_is_settled_only_with_everything_that_follows_it() -> None:
    story = Story("r.s", agent("one", "r.s", "a.b"), agent("quiet", "a.b", "c.d", kind="events"), agent("last", "c.d"))
    telling = story.told([story.started(), story.completed("one"), story.completed("quiet")])
    assert telling.tell(CANCELLED) == ["fence last"]
    assert telling.tell(story.abandoned("last")) == ["compensate last"]
    assert telling.tell(story.undone("last")) == ["compensate one"]


def test_a_fence_proves_nothing_for_a_pure_step_so_its_possible_children_are_fenced_too() -> None:
    story = Story("r.s", agent("one", "r.s", "a.b"), agent("pure", "a.b", "c.d", kind="pure"), agent("last", "c.d"))
    telling = story.told([story.started(), story.completed("one"), CANCELLED])
    assert telling.tell(story.fenced("pure")) == ["fence last"]
    assert telling.tell(story.fenced("last")) == ["compensate one"]
    telling.tell(story.undone("one"))
    assert telling.state == "compensated"
    assert telling.tell(story.completed("pure")) == [] and telling.state == "compensated" and not telling.alarms


def test_a_loop_of_pure_steps_is_fenced_once_round() -> None:
    story = Story("r.s", agent("ping", "r.s", "a.b", kind="pure"), agent("pong", "a.b", "r.s", kind="pure"))
    telling = story.told([story.started()])
    assert telling.tell(CANCELLED) == ["fence ping"]
    assert telling.tell(story.fenced("ping")) == ["fence pong"]
    telling.tell(story.fenced("pong"))
    assert telling.state == "compensated"


def test_an_optional_step_that_failed_without_effect_does_not_matter() -> None:
    story = Story("r.s", agent("needed", "r.s"), agent("nice", "r.s", optional=True))
    telling = story.told([story.started(), story.failed("nice")])
    assert telling.state == "running"
    assert telling.tell(story.completed("needed")) == [] and telling.state == "committed"
    other = story.told([story.started(), story.failed("nice", Effect.UNKNOWN)])
    assert other.state == "aborting"


def test_an_optional_step_gets_another_chance_only_while_its_flow_runs() -> None:
    story = Story("r.s", agent("needed", "r.s"), agent("nice", "r.s", optional=True))
    telling = story.told([story.started(), story.failed("nice")])
    assert telling.tell(story.decided("nice", Decision.RETRY)) == ["retry nice"]
    assert telling.tell(story.completed("needed")) == [] and telling.state == "running"
    assert telling.tell(story.failed("nice")) == [] and telling.state == "running"  # told again: it was forgiven
    telling.tell(story.completed("nice"))
    assert telling.state == "committed"
    late = story.told([story.started(), story.failed("nice"), story.completed("needed"), story.decided("nice", Decision.RETRY)])
    assert late.state == "committed" and [alarm.violation for alarm in late.alarms] == [Violation.DECISION_REFUSED]


def test_another_chance_takes_as_long_as_its_flow_has() -> None:
    story = Story("r.s", agent("needed", "r.s"), agent("nice", "r.s", optional=True))
    telling = story.told([story.started(), story.failed("nice"), story.decided("nice", Decision.RETRY)])
    command = story.command("nice", Ask.RETRY, generation=2)
    assert [deadline.scope for deadline in deadlines(telling.saga, patience_ms=10)] == [story.flow]
    assert telling.tell(story.late(command)) == [] and telling.state == "running"
    assert telling.tell(story.late(story.flow)) == ["fence needed", "fence nice"]


def test_a_late_success_of_an_optional_pure_step_changes_nothing_where_nothing_follows() -> None:
    story = Story("r.s", agent("needed", "r.s"), agent("nice", "r.s", "x.y", kind="pure", optional=True))
    telling = story.told([story.started(), story.failed("nice"), story.completed("needed")])
    assert telling.state == "committed"
    telling.tell(story.completed("nice"))
    assert telling.state == "committed" and not telling.alarms
    more = Story("r.s", agent("needed", "r.s"), agent("nice", "r.s", "x.y", kind="pure", optional=True), agent("after", "x.y"))
    telling = more.told([more.started(), more.failed("nice"), more.completed("needed"), more.completed("nice")])
    assert telling.state == "reopened" and telling.alarms[-1].violation is Violation.CONTRADICTS_COMMIT


# Deadlines.


def test_a_deadline_ends_a_flow_that_nobody_subscribes_to() -> None:
    story = Story("r.s")
    telling = story.told([story.started()])
    assert telling.state == "running"
    telling.tell(story.late(story.flow))
    assert telling.state == "compensated"


def test_a_deadline_means_nothing_to_what_the_journal_says_is_done() -> None:
    telling = FAN.told([FAN.started(), FAN.completed("left"), FAN.late(FAN.ids["left"])])
    assert telling.state == "running"
    telling.tell(FAN.completed("right"), FAN.late(FAN.flow))
    assert telling.state == "committed"
    assert FAN.told([FAN.started(), FAN.late(FAN.ids["left"])]).state == "aborting"


def test_a_command_without_answer_makes_the_flow_stuck_until_somebody_decides() -> None:
    telling = CHAIN.told([CHAIN.started(), CHAIN.completed("one"), CANCELLED])
    telling.tell(CHAIN.late(CHAIN.command("two", Ask.FENCE)))
    assert telling.state == "stuck" and list(outstanding(telling.saga)) == []
    telling.tell(CHAIN.late(CHAIN.command("two", Ask.FENCE)))
    assert telling.tell(CHAIN.fenced("two")) == ["compensate one"]
    telling.tell(CHAIN.undone("one"))
    assert telling.state == "stuck"
    telling.tell(CHAIN.decided("two", Decision.RETRY))
    assert telling.state == "compensated"


def test_a_branch_that_does_not_depend_on_the_stuck_one_goes_on() -> None:
    telling = FAN.told([FAN.started(), CANCELLED, FAN.late(FAN.command("left", Ask.FENCE))])
    assert telling.tell(FAN.abandoned("right")) == ["compensate right"]
    telling.tell(FAN.undone("right"))
    assert telling.state == "stuck"


def test_a_decision_to_retry_sends_the_command_in_its_next_generation() -> None:
    telling = CHAIN.told([CHAIN.started(), CHAIN.completed("one"), CANCELLED, CHAIN.late(CHAIN.command("two", Ask.FENCE))])
    assert telling.tell(CHAIN.decided("two", Decision.RETRY)) == ["fence two"]
    assert telling.commands[-1].id == CHAIN.command("two", Ask.FENCE, 2)
    assert telling.tell(CHAIN.decided("two", Decision.RETRY)) == [] and telling.state == "aborting"


def test_an_exhausted_undo_is_stuck_and_a_passing_trouble_is_not() -> None:
    telling = aborted_chain()
    telling.tell(CHAIN.undo_failed("two", retryable=True))
    assert telling.state == "aborting"
    telling.tell(CHAIN.undo_failed("two", retryable=False))
    assert telling.state == "stuck"
    assert telling.tell(CHAIN.decided("two", Decision.RETRY)) == ["compensate two"]
    telling.tell(CHAIN.undo_failed("two", retryable=False))
    assert telling.state == "aborting"  # it was told of the first generation


@pytest.mark.parametrize("decision", [Decision.RESOLVED, Decision.SKIP])
def test_what_a_person_vouches_for_shows_in_the_state(decision: Decision) -> None:
    telling = aborted_chain()
    telling.tell(CHAIN.undo_failed("two", retryable=False))
    assert telling.tell(CHAIN.decided("two", decision)) == ["compensate one"]
    telling.tell(CHAIN.undone("one"))
    assert telling.state == "compensated_manual"


def test_before_a_step_of_unknown_outcome_is_resolved_its_possible_children_are_fenced() -> None:
    telling = CHAIN.told([CHAIN.started(), CHAIN.completed("one"), CANCELLED, CHAIN.late(CHAIN.command("two", Ask.FENCE))])
    assert telling.tell(CHAIN.decided("two", Decision.RESOLVED)) == ["fence three"]
    assert telling.tell(CHAIN.fenced("three")) == ["compensate one"]
    telling.tell(CHAIN.undone("one"))
    assert telling.state == "compensated_manual"


def test_a_step_that_was_resolved_unseen_is_undone_when_it_turns_out_to_have_acted() -> None:
    telling = FAN.told([FAN.started(), CANCELLED, FAN.fenced("right"), FAN.late(FAN.command("left", Ask.FENCE))])
    telling.tell(FAN.decided("left", Decision.RESOLVED))
    assert telling.state == "compensated_manual"
    assert telling.tell(FAN.completed("left")) == ["compensate left"] and telling.state == "reopened"
    telling.tell(FAN.undone("left"))
    assert telling.state == "compensated_manual"


def test_a_decision_on_a_step_that_waits_for_none_changes_nothing_and_is_told() -> None:
    telling = aborted_chain()
    before = telling.saga
    telling.tell(CHAIN.decided("one", Decision.RESOLVED))
    assert telling.saga == before and telling.alarms[-1].violation is Violation.DECISION_REFUSED


def test_the_list_of_a_stuck_flow_names_exactly_what_is_left_and_what_needs_a_person() -> None:
    telling = CHAIN.told([CHAIN.started(), CHAIN.completed("one"), CANCELLED, CHAIN.late(CHAIN.command("two", Ask.FENCE))])
    assert [(left.agent, left.asked, left.waiting) for left in unsettled(telling.saga)] == [
        ("one", None, None),
        ("two", None, Waiting.FOR_AN_ANSWER),
    ]
    telling.tell(CHAIN.decided("two", Decision.RETRY))
    assert [(left.agent, left.asked, left.generation) for left in unsettled(telling.saga)] == [("one", None, 1), ("two", Ask.FENCE, 2)]
    telling.tell(CHAIN.fenced("two"), CHAIN.undone("one"))
    assert unsettled(telling.saga) == ()


def test_the_list_of_a_flow_that_goes_forward_names_what_it_waits_for() -> None:
    telling = PIVOT.told([PIVOT.started(), PIVOT.completed("first"), PIVOT.completed("pivot"), PIVOT.failed("after", Effect.UNKNOWN)])
    assert [(left.agent, left.waiting) for left in unsettled(telling.saga)] == [("after", Waiting.TO_GO_FORWARD)]


# Pivots.

PIVOT = Story("r.s", agent("first", "r.s", "a.b"), agent("pivot", "a.b", "c.d", kind="pivot"), agent("after", "c.d", kind="retriable"))
BESIDE = Story(
    "r.s", agent("lead", "r.s", "a.b", kind="pure"), agent("pivot", "a.b", kind="pivot"), agent("beside", "r.s", kind="pure")
)  # fmt: skip


def test_past_a_pivot_the_flow_only_goes_forward() -> None:
    telling = PIVOT.told([PIVOT.started(), PIVOT.completed("first"), PIVOT.completed("pivot")])
    assert telling.state == "forward_only"
    assert telling.tell(CANCELLED) == [] and telling.state == "forward_only"
    telling.tell(PIVOT.completed("after"))
    assert telling.state == "committed"


def test_an_abort_that_meets_a_pivot_asks_the_pivot_alone_and_is_revoked_when_it_has_happened() -> None:
    telling = PIVOT.told([PIVOT.started(), PIVOT.completed("first")])
    assert telling.tell(CANCELLED) == ["fence pivot"]
    assert telling.tell(PIVOT.completed("pivot")) == [] and telling.state == "forward_only"


def test_an_abort_that_met_a_pivot_goes_on_when_it_never_happened() -> None:
    telling = PIVOT.told([PIVOT.started(), PIVOT.completed("first"), CANCELLED])
    assert telling.tell(PIVOT.fenced("pivot")) == ["compensate first"]


def test_a_pivot_that_may_have_happened_is_for_a_person_to_decide() -> None:
    telling = PIVOT.told([PIVOT.started(), PIVOT.completed("first"), CANCELLED, PIVOT.abandoned("pivot")])
    assert telling.state == "stuck" and list(outstanding(telling.saga)) == []
    assert telling.tell(PIVOT.decided("pivot", Decision.RETRY)) == [] and telling.state == "stuck"
    assert telling.tell(PIVOT.decided("pivot", Decision.RESOLVED)) == ["compensate first"]


def test_a_pivot_that_nobody_is_known_to_have_caused_is_for_a_person_to_decide() -> None:
    """Also where the person's word is about a step further back."""
    before = Story("r.s", agent("lead", "r.s", "x.y"), agent("first", "x.y", "a.b"), agent("pivot", "a.b", kind="pivot"))
    telling = before.told([before.started(), before.begun("lead"), before.completed("first"), before.completed("pivot")])
    assert telling.tell(before.late(before.flow)) == ["fence lead"]
    telling.tell(before.late(before.command("lead", Ask.FENCE)))
    telling.tell(before.decided("lead", Decision.SKIP))
    assert telling.state == "stuck", "not committed: that lead has led to it is a guess"
    telling.tell(before.completed("lead"))
    assert telling.state == "committed", "now it has been told"


def test_what_its_agent_will_not_try_again_is_not_offered() -> None:
    told = [PIVOT.started(), PIVOT.completed("first"), PIVOT.completed("pivot")]
    for ended in (PIVOT.abandoned("after"), PIVOT.fenced("after")):
        telling = PIVOT.told([*told, ended])
        assert telling.state == "stuck"
        assert choices(telling.saga, PIVOT.ids["after"]) == (Decision.RESOLVED, Decision.SKIP)
    asked = PIVOT.told([PIVOT.started(), PIVOT.completed("first"), CANCELLED])
    asked.tell(PIVOT.late(PIVOT.command("pivot", Ask.FENCE)))
    assert Decision.RETRY in choices(asked.saga, PIVOT.ids["pivot"])
    asked.tell(PIVOT.abandoned("pivot"))
    assert choices(asked.saga, PIVOT.ids["pivot"]) == (Decision.RESOLVED, Decision.SKIP), "it has answered, too late"


def test_a_step_beside_a_possible_pivot_is_fenced_only_when_the_pivot_has_become_impossible() -> None:
    telling = BESIDE.told([BESIDE.started()])
    assert telling.tell(CANCELLED) == ["fence lead"]
    assert telling.tell(BESIDE.completed("lead")) == ["fence pivot"]
    assert telling.tell(BESIDE.fenced("pivot")) == ["fence beside"]


def test_a_failure_past_the_pivot_waits_for_a_person() -> None:
    telling = PIVOT.told([PIVOT.started(), PIVOT.completed("first"), PIVOT.completed("pivot"), PIVOT.failed("after", Effect.UNKNOWN)])
    assert telling.state == "stuck"
    assert telling.tell(PIVOT.decided("after", Decision.RETRY)) == ["retry after"] and telling.state == "forward_only"
    telling.tell(PIVOT.failed("after", Effect.UNKNOWN))
    assert telling.state == "forward_only"
    telling.tell(PIVOT.failed("after", Effect.UNKNOWN, generation=2))
    assert telling.state == "stuck"
    telling.tell(PIVOT.decided("after", Decision.SKIP, generation=2))
    assert telling.state == "committed" and telling.saga.manual


def test_a_flow_that_is_late_past_its_pivot_is_stuck_until_it_is_done() -> None:
    telling = PIVOT.told([PIVOT.started(), PIVOT.completed("first"), PIVOT.completed("pivot"), PIVOT.late(PIVOT.flow)])
    assert telling.state == "stuck"
    telling.tell(PIVOT.completed("after"))
    assert telling.state == "committed"


# A person's word past a pivot.

GONE_PAST = Story(
    "r.s", agent("pivot", "r.s", "a.b", kind="pivot"), agent("silent", "a.b", "c.d", kind="retriable"),
    agent("next", "c.d", "e.f", kind="retriable"), agent("last", "e.f", kind="retriable"),
)  # fmt: skip


def past_a_silent_step(story: Story = GONE_PAST) -> Telling:
    return story.told([story.started(), story.completed("pivot"), story.late(story.flow)])


@pytest.mark.parametrize("decision", [Decision.RESOLVED, Decision.SKIP])
def test_past_a_pivot_a_flow_commits_only_when_what_a_decided_step_may_lead_to_is_fenced(decision: Decision) -> None:
    telling = past_a_silent_step()
    assert telling.tell(GONE_PAST.decided("silent", decision)) == ["fence next"] and telling.state == "forward_only"
    assert [(left.agent, left.asked, left.waiting) for left in unsettled(telling.saga)] == [("next", Ask.FENCE, None)]
    due = {deadline.scope: deadline.due_ms for deadline in deadlines(telling.saga, patience_ms=10)}
    assert due == {GONE_PAST.command("next", Ask.FENCE): telling.at_ms + 10}
    assert telling.tell(GONE_PAST.fenced("next")) == [] and telling.alarms == []
    assert telling.state == "committed" and unsettled(telling.saga) == ()


def test_what_had_run_when_its_fence_came_leads_on_and_is_waited_for() -> None:
    telling = past_a_silent_step()
    telling.tell(GONE_PAST.decided("silent", Decision.SKIP))
    assert telling.tell(GONE_PAST.completed("next")) == [], "what has happened leads on, as everything past a pivot"
    assert telling.state == "stuck" and [left.agent for left in unsettled(telling.saga)] == ["last"]
    telling.tell(GONE_PAST.completed("last"))
    assert telling.state == "committed" and telling.alarms == []


def test_a_fence_past_a_pivot_that_nobody_answers_is_stuck_and_can_be_decided_again() -> None:
    telling = past_a_silent_step()
    telling.tell(GONE_PAST.decided("silent", Decision.SKIP), GONE_PAST.late(GONE_PAST.command("next", Ask.FENCE)))
    assert telling.state == "stuck"
    assert [(left.agent, left.waiting) for left in unsettled(telling.saga)] == [("next", Waiting.FOR_AN_ANSWER)]
    assert choices(telling.saga, GONE_PAST.ids["next"]) == (Decision.RETRY, Decision.RESOLVED, Decision.SKIP)
    assert telling.tell(GONE_PAST.decided("next", Decision.RETRY)) == ["fence next"]
    assert telling.commands[-1].id == GONE_PAST.command("next", Ask.FENCE, 2)
    telling.tell(GONE_PAST.late(GONE_PAST.command("next", Ask.FENCE, 2)))
    assert telling.tell(GONE_PAST.decided("next", Decision.SKIP, generation=2)) == ["fence last"]
    telling.tell(GONE_PAST.fenced("last"))
    assert telling.state == "committed"


@pytest.mark.parametrize("effect", [Effect.UNKNOWN, Effect.NONE])
def test_what_failed_before_its_fence_came_waits_for_a_person_unless_nothing_is_left_of_it(effect: Effect) -> None:
    telling = past_a_silent_step()
    telling.tell(GONE_PAST.decided("silent", Decision.SKIP), GONE_PAST.failed("next", effect))
    assert telling.state == ("committed" if effect is Effect.NONE else "stuck")
    if effect is Effect.UNKNOWN:
        assert telling.tell(GONE_PAST.decided("next", Decision.RETRY)) == ["retry next"], "whom a person wants to be done is not fenced"
        telling.tell(GONE_PAST.failed("next", Effect.NONE, generation=2))
        assert telling.state == "stuck" and [left.agent for left in unsettled(telling.saga)] == ["next"], "and is missed"


def test_a_decided_step_that_completes_before_its_flow_commits_is_heard() -> None:
    telling = past_a_silent_step()
    telling.tell(GONE_PAST.decided("silent", Decision.SKIP), GONE_PAST.completed("silent"))
    assert telling.state == "stuck" and list(outstanding(telling.saga)) == [], "it has led on, and what follows is owed"
    telling.tell(GONE_PAST.fenced("next"))
    assert telling.state == "committed" and telling.alarms == [], "the fence was under way: the word holds for it"


def test_a_fence_whose_answer_nobody_needs_any_more_contradicts_no_commit() -> None:
    telling = past_a_silent_step()
    telling.tell(GONE_PAST.decided("silent", Decision.SKIP), GONE_PAST.completed("silent", "-"))
    assert telling.state == "committed"
    telling.tell(GONE_PAST.fenced("next"))
    assert telling.state == "committed" and telling.alarms == []


def test_a_join_past_a_pivot_is_not_fenced_while_another_part_may_come() -> None:
    parts = Story(
        "r.s", agent("pivot", "r.s", "a.b", kind="pivot"), agent("slow", "a.b", "c.d", kind="retriable"),
        agent("silent", "a.b", "e.f", kind="retriable"), agent("both", "c.d+e.f", kind="retriable", within_ms=50),
    )  # fmt: skip
    telling = past_a_silent_step(parts)
    assert telling.tell(parts.decided("silent", Decision.SKIP)) == []
    assert list(deadlines(telling.saga, 10)) == [], "it has no part that anybody knows of"
    assert telling.tell(parts.completed("slow")) == [], "it has its first part, and its time will be up"
    assert [each.due_ms for each in deadlines(telling.saga, 10) if each.scope == parts.ids["both"]] == [telling.at_ms + 50]


def test_a_join_that_is_known_to_have_a_part_after_all_has_its_own_time() -> None:
    parts = Story(
        "r.s", agent("pivot", "r.s", "a.b", kind="pivot"), agent("silent", "a.b", "c.d", "x.y", kind="retriable"),
        agent("next", "x.y", "e.f", kind="retriable"), agent("both", "c.d+e.f", kind="retriable", within_ms=50),
    )  # fmt: skip
    telling = past_a_silent_step(parts)
    assert set(telling.tell(parts.decided("silent", Decision.SKIP))) == {"fence next", "fence both"}
    telling.tell(parts.completed("next"))
    assert [each.due_ms for each in deadlines(telling.saga, 10) if each.scope == parts.ids["both"]] == [telling.at_ms + 50]


def test_a_part_that_is_only_possible_takes_the_place_of_none_that_is_known() -> None:
    """Otherwise nobody would wait for the join that has all its parts."""
    parts = Story(
        "r.s", agent("pivot", "r.s", "a.b", kind="pivot"), agent("silent", "a.b", "c.d", kind="retriable"),
        agent("slow", "a.b", "e.f", kind="retriable"), agent("late", "e.f", "c.d", "x.y", kind="retriable"),
        agent("both", "c.d+x.y", kind="retriable"),
    )  # fmt: skip
    telling = past_a_silent_step(parts)
    assert telling.tell(parts.decided("silent", Decision.SKIP), parts.completed("slow"), parts.completed("late")) == []
    assert [(left.agent, left.waiting) for left in unsettled(telling.saga)] == [("both", Waiting.TO_GO_FORWARD)]


def test_a_step_that_a_person_went_past_gets_no_other_chance() -> None:
    """What would follow it was fenced on that word, and can never run."""
    telling = past_a_silent_step()
    telling.tell(GONE_PAST.decided("silent", Decision.RESOLVED), GONE_PAST.failed("silent", Effect.UNKNOWN))
    assert telling.state == "stuck", "it had acted after all"
    assert choices(telling.saga, GONE_PAST.ids["silent"]) == (Decision.RESOLVED, Decision.SKIP)
    telling.tell(GONE_PAST.decided("silent", Decision.RESOLVED, generation=2))
    assert telling.state == "committed"


def test_a_pure_step_that_fails_after_it_was_fenced_and_left_behind_contradicts_no_commit() -> None:
    pure = Story(
        "r.s", agent("pivot", "r.s", "a.b", kind="pivot"), agent("silent", "a.b", "c.d", kind="retriable"),
        agent("next", "c.d", kind="pure"),
    )  # fmt: skip
    telling = past_a_silent_step(pure)
    telling.tell(pure.decided("silent", Decision.SKIP), pure.completed("silent"), pure.fenced("next"))
    assert telling.state == "committed"
    telling.tell(pure.failed("next"))
    assert telling.state == "committed" and telling.alarms == []


# Joins.

JOIN = Story("r.s", agent("a", "r.s", "a.b"), agent("b", "r.s", "c.d"), agent("both", "a.b+c.d"))
EXPIRING = Story("r.s", agent("a", "r.s", "a.b"), agent("b", "r.s", "c.d"), agent("both", "a.b+c.d", kind="events", within_ms=50))


def test_a_join_whose_time_was_up_is_asked_for_another_try_and_not_to_expire_once_more() -> None:
    optional = Story("r.s", agent("a", "r.s", "a.b"), agent("b", "r.s", "c.d"), agent("c", "r.s"),
                     agent("both", "a.b+c.d", kind="events", within_ms=50, optional=True))  # fmt: skip
    telling = optional.told([optional.started(), optional.completed("a"), optional.completed("b"), optional.late(optional.ids["both"])])
    telling.tell(optional.failed("both"))
    assert telling.tell(optional.decided("both", Decision.RETRY)) == ["retry both"]
    assert [deadline.scope for deadline in deadlines(telling.saga, patience_ms=10)] == [optional.flow], "its time was up once"
    assert telling.tell(optional.late(optional.ids["both"])) == []
    telling.tell(optional.completed("both"), optional.completed("c"))
    assert telling.state == "committed"


def test_a_join_is_owed_once_all_its_parts_are_there() -> None:
    telling = JOIN.told([JOIN.started(), JOIN.completed("a"), JOIN.completed("b")])
    assert telling.state == "running"
    telling.tell(JOIN.completed("both"))
    assert telling.state == "committed"


def test_a_part_of_a_join_is_not_undone_while_the_other_may_still_come() -> None:
    telling = JOIN.told([JOIN.started(), JOIN.completed("a")])
    assert telling.tell(CANCELLED) == ["fence b"]
    assert telling.tell(JOIN.completed("b")) == ["fence both"]
    assert telling.tell(JOIN.fenced("both")) == ["compensate a", "compensate b"]
    other = JOIN.told([JOIN.started(), JOIN.completed("a"), CANCELLED])
    assert other.tell(JOIN.fenced("b")) == ["compensate a"]


def test_a_join_that_expires_is_told_to_its_agent_and_ends_as_it_answers() -> None:
    story = EXPIRING
    telling = story.told([story.started(), story.completed("a")])
    assert telling.tell(story.late(story.ids["both"])) == ["expire both"] and telling.state == "running"
    assert telling.tell(story.failed("both")) == ["compensate a", "fence b"]


def test_a_flow_waits_for_a_join_that_may_expire_from_its_first_part_on() -> None:
    story = Story("r.s", agent("a", "r.s", "a.b"), agent("b", "r.s", "c.d", "e.f"), agent("both", "a.b+c.d", within_ms=50))
    telling = story.told([story.started(), story.completed("a"), story.completed("b", "e.f")])
    assert telling.state == "running"
    telling.tell(story.completed("both"))
    assert telling.state == "committed"


# Contradictions.


def test_a_record_that_contradicts_a_commit_is_kept_and_told_and_undoes_nothing() -> None:
    telling = FAN.told([FAN.started(), FAN.completed("left"), FAN.completed("right")])
    assert telling.tell(FAN.failed("left", Effect.UNKNOWN)) == [] and telling.state == "reopened"
    assert telling.alarms[-1].violation is Violation.CONTRADICTS_COMMIT
    telling.tell(FAN.decided("left", Decision.RESOLVED))
    assert telling.state == "committed"


def test_a_repetition_after_the_end_is_no_contradiction() -> None:
    telling = FAN.told([FAN.started(), FAN.completed("left"), FAN.completed("right"), FAN.completed("left"), FAN.begun("left")])
    assert telling.state == "committed" and not telling.alarms


def test_an_effect_that_appears_after_the_compensation_reopens_it() -> None:
    telling = FAN.told([FAN.started(), FAN.failed("left"), FAN.fenced("right")])
    assert telling.state == "compensated"
    assert telling.tell(FAN.completed("right")) == ["compensate right"] and telling.state == "reopened"
    assert {alarm.violation for alarm in telling.alarms} == {Violation.CONTRADICTS_COMPENSATION, Violation.CONTRADICTS_OUTCOME}
    telling.tell(FAN.undone("right"))
    assert telling.state == "compensated"


def test_a_deadline_that_fired_before_its_time_by_the_brokers_clock_is_none() -> None:
    early = DeadlineFired(scope=CHAIN.flow, due=datetime.fromtimestamp(60, UTC))
    telling = CHAIN.told([CHAIN.started()])
    for at_ms, state in ((59_999, "running"), (60_000, "aborting")):
        telling.at_ms = at_ms - 1
        telling.tell(early)
        assert telling.state == state


def test_a_ledger_that_has_forgotten_a_step_proves_nothing_about_it() -> None:
    """The step announced that it would act, and where its row should be there is none: the ledger was lost."""
    telling = CHAIN.told([CHAIN.started(), CHAIN.begun("one"), CANCELLED])
    assert telling.tell(CHAIN.fenced("one", attempts=0)) == ["compensate one"] and telling.state == "aborting"
    assert telling.alarms[-1].violation is Violation.CONTRADICTS_OUTCOME
    telling.tell(CHAIN.fenced("one", attempts=0), CHAIN.undo_failed("one", retryable=False))
    assert telling.state == "stuck" and [each.step_id for each in unsettled(telling.saga)] == [CHAIN.ids["one"]]
    telling.tell(CHAIN.decided("one", Decision.RESOLVED))
    assert telling.state == "compensated_manual"


def test_a_step_that_began_and_changed_nothing_may_well_be_fenced() -> None:
    telling = CHAIN.told([CHAIN.started(), CHAIN.begun("one"), CANCELLED, CHAIN.fenced("one", attempts=1)])
    assert telling.state == "compensated" and not telling.alarms


def test_that_a_ledger_has_forgotten_a_step_reopens_what_was_compensated_on_its_word() -> None:
    telling = CHAIN.told([CHAIN.started(), CHAIN.begun("one"), CANCELLED, CHAIN.fenced("one")])
    assert telling.state == "compensated", "an earlier version does not say how many attempts its ledger knew"
    assert telling.tell(CHAIN.fenced("one", attempts=0)) == ["compensate one"] and telling.state == "reopened"


def test_a_pivot_that_a_ledger_has_forgotten_is_for_a_person() -> None:
    story = Story("r.s", agent("point", "r.s", kind="pivot"))
    telling = story.told([story.started(), story.begun("point"), CANCELLED, story.fenced("point", attempts=0)])
    assert telling.state == "stuck" and telling.commands[1:] == []


def test_a_record_of_a_step_that_nobody_caused_is_neither_undone_nor_forgotten() -> None:
    telling = CHAIN.told([CHAIN.started(), CHAIN.completed("three"), CHAIN.failed("one")])
    assert telling.state == "stuck" and telling.commands == []
    telling.tell(CHAIN.decided("three", Decision.RESOLVED))
    assert telling.state == "compensated_manual"


def test_records_before_the_flow_started_are_kept() -> None:
    telling = FAN.told([FAN.completed("left"), FAN.failed("right"), FAN.started()])
    assert telling.commands[-1].agent == "left"


def test_a_second_start_changes_nothing_and_an_unknown_pin_is_an_error() -> None:
    telling = FAN.told([FAN.started(), FAN.started(deadline_ms=5)])
    assert telling.saga.deadline_ms == 1000
    with pytest.raises(UnknownPin, match=FAN.choreography.hash):
        step(Telling(FAN).saga, FAN.started(), 0, {})


def test_times_are_data() -> None:
    telling = EXPIRING.told([EXPIRING.started(), EXPIRING.completed("a")])
    assert set(deadlines(telling.saga, 500)) == {Deadline("flow", 1001), Deadline(EXPIRING.ids["both"], 52)}
    telling.tell(CANCELLED)
    commands = {Deadline(EXPIRING.command(name, Ask.FENCE), 503) for name in ("b", "both")}
    assert set(deadlines(telling.saga, 500)) == commands and telling.saga.state is State.ABORTING


def test_what_is_without_effect_and_leads_to_a_join_that_is_there_before_it_is_settled_too() -> None:
    longer = Story(
        "r.s", agent("a", "r.s", "a.b"), agent("b", "r.s", "c.d"), agent("c", "c.d", "e.f", kind="events"),
        agent("both", "a.b+e.f", within_ms=50),
    )  # fmt: skip
    telling = longer.told([longer.started(), longer.completed("a"), longer.completed("b"), longer.completed("c"), CANCELLED])
    assert telling.tell(longer.fenced("both")) == ["compensate a", "compensate b"]
    telling.tell(longer.undone("a"), longer.undone("b"))
    assert telling.state == "compensated"
