"""A flow that does not go on as it began, as people are shown it: the story, the live picture, the lists and the exit codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import click
import pytest

from maypole.schemas.envelope import read_envelope
from maypole.schemas.event import Event
from maypole.schemas.journal import AbortRequested, Decision, Effect
from maypole.services.cli.commands.flows import cancelled_as
from maypole.services.cli.commands.saga import _check, _step_called
from maypole.services.cli.flow_ending import told_end
from maypole.services.cli.flow_lines import Lines
from maypole.services.cli.flow_picture import FlowPicture, Status, Turn
from maypole.services.cli.flow_story import FlowStory, Standing, waits_for_a_person
from maypole.services.cli.problems import Problem
from maypole.services.cli.saga_views import saga_view, stuck_flow, stuck_rows
from maypole.services.following import Buried, Journaled
from maypole.services.saga import Ask, FlowState, State, fold
from tests.support.stories import Story, agent

CHAIN = Story("r.s", agent("one", "r.s", "a.b"), agent("two", "a.b", "c.d"), agent("last", "c.d", kind="pivot"))
FAILED = (CHAIN.started(), CHAIN.completed("one"), CHAIN.completed("two"), CHAIN.failed("last"))
UNDONE = (*FAILED, CHAIN.undone("two"), CHAIN.undone("one"))
NOT_UNDOABLE = CHAIN.undo_failed("two", retryable=False)
STUCK = (*FAILED, NOT_UNDOABLE)
CANCELLED = AbortRequested(by="ada@home", why="ordered twice")
REOPENED = (CHAIN.started(), CANCELLED, CHAIN.fenced("one"), CHAIN.completed("one"))
CONTRADICTED = (*FAILED[:3], CHAIN.completed("last"), CHAIN.failed("two", Effect.UNKNOWN))


def journaled(records: Sequence[Event], story: Story = CHAIN) -> list[Journaled]:
    found, state = [], FlowState(story.flow)
    for second, record in enumerate(records):
        headers = [("ce_id", b"%d" % second), ("ce_type", record.event_type.encode()), ("ce_correlationid", story.flow.encode())]
        state = fold(state, record, story.known, 1_000 * (second + 1))
        found.append(Journaled(record, read_envelope(headers), 1_000 * (second + 1), state))
    return found


def told(*records: Event, story: Story = CHAIN) -> FlowStory:
    telling = FlowStory()
    for seen in journaled(records, story):
        telling.see(seen)
    return telling


def pictured(*records: Event, story: Story = CHAIN) -> FlowPicture:
    picture = FlowPicture()
    for seen in journaled(records, story):
        picture.see(seen)
    return picture


def standings(story: FlowStory) -> dict[str, str]:
    return {step.agent: step.standing.value for step in story.steps()}


def test_each_step_is_told_with_how_it_ended_and_by_which_command_it_was_undone() -> None:
    view = saga_view(told(*UNDONE))
    assert (view["state"], view["because"]) == ("compensated", "last failed for good on c.d: rejected")
    assert (view["started_at"], view["ended_at"]) == ("1970-01-01T00:00:01.000000Z", "1970-01-01T00:00:06.000000Z")
    assert view["deadline_at"] == "1970-01-01T00:00:02.000000Z"
    steps = {step["agent"]: step for step in view["steps"]}
    assert {name: step["state"] for name, step in steps.items()} == {"one": "undone", "two": "undone", "last": "failed"}
    assert steps["two"]["undone"] == {"at": "1970-01-01T00:00:05.000000Z", "command_id": CHAIN.command("two", Ask.COMPENSATE)}
    assert (steps["last"]["error"], steps["last"]["effect"]) == ("rejected: no", "NONE")
    assert all(step["settled"] and step["next"] == [] for step in steps.values())


def test_what_is_being_undone_names_the_command_that_has_no_answer_yet() -> None:
    steps = {step["agent"]: step for step in saga_view(told(*FAILED))["steps"]}
    asked = {"kind": "compensate", "at": "1970-01-01T00:00:04.000000Z", "command_id": CHAIN.command("two", Ask.COMPENSATE)}
    assert steps["two"]["asked"] == asked
    assert steps["two"]["waits_for"] == "its agent, which was asked: compensate"
    assert (steps["one"]["asked"], steps["one"]["waits_for"]) == (None, "what follows it")


def test_a_step_that_goes_forward_waits_for_its_agent_also_past_a_pivot() -> None:
    past = Story("r.s", agent("sold", "r.s", "a.b", kind="pivot"), agent("sent", "a.b", kind="retriable"))
    story = told(past.started(), past.completed("sold"), past.begun("sent"), CANCELLED, story=past)
    assert story.saga.state is State.FORWARD_ONLY
    assert [(step["agent"], step["waits_for"]) for step in saga_view(story)["steps"]] == [("sold", None), ("sent", "its agent")]


def test_a_cancelled_flow_says_who_cancelled_it_and_fenced_steps_by_which_command() -> None:
    fenced = CHAIN.fenced("two").model_copy(update={"command_id": CHAIN.command("two", Ask.FENCE)})
    story = told(CHAIN.started(), CHAIN.completed("one"), CANCELLED, fenced)
    assert story.because == "cancelled by ada@home: ordered twice"
    assert standings(story) == {"one": "completed", "two": "fenced"}
    two = saga_view(story)["steps"][1]
    assert two["fenced"] == {"at": "1970-01-01T00:00:04.000000Z", "command_id": CHAIN.command("two", Ask.FENCE)}


def test_steps_that_nobody_can_rule_out_are_told_as_possible() -> None:
    story = Story("r.s", agent("pure", "r.s", "a.b", kind="pure"), agent("after", "a.b"))
    fenced = told(story.started(), CANCELLED, story.fenced("pure"), story=story)
    assert standings(fenced) == {"pure": "fenced", "after": "possible"}


def test_a_stuck_flow_is_listed_with_exactly_what_is_left_and_the_commands_to_type() -> None:
    flow = stuck_flow(told(*STUCK))
    assert [(step["agent"], step["outcome"], step["effect"]) for step in flow["unsettled"]] == [
        ("one", "completed", "APPLIED"), ("two", "completed", "APPLIED"),
    ]  # fmt: skip
    one, two = flow["unsettled"]
    assert (one["next"], one["waits_for"]) == ([], "what follows it")
    step = CHAIN.ids["two"][:8]
    assert two["next"] == [f"maypole saga decide flow --step {step} --decision {each} --note WHY" for each in ("retry", "resolved", "skip")]
    assert flow["next"] == two["next"][0]
    assert [row["flow_id"] for row in stuck_rows(flow)] == ["flow", " "], "the flow is named once"


@pytest.mark.parametrize("records", [FAILED[:1], FAILED[:3], FAILED, UNDONE], ids=["runs", "runs on", "is undone", "was undone"])
def test_a_flow_that_needs_nobody_is_not_listed_as_stuck(records: Sequence[Event]) -> None:
    assert not waits_for_a_person(told(*records).saga)


def test_what_contradicts_a_commit_can_be_taken_note_of_and_asks_no_agent_again() -> None:
    story = told(*CONTRADICTED)
    (listed,) = stuck_flow(story)["unsettled"]
    step = CHAIN.ids["two"][:8]
    assert listed["next"] == [f"maypole saga decide flow --step {step} --decision {each} --note WHY" for each in ("resolved", "skip")]
    with pytest.raises(Problem, match=r"expected resolved or skip, found retry"):
        _check(story, _step_called(story, step), Decision.RETRY)
    assert told(*CONTRADICTED, CHAIN.decided("two", Decision.RESOLVED)).saga.state is State.COMMITTED


def test_a_flow_that_is_undone_once_more_after_its_end_needs_nobody() -> None:
    picture = pictured(*REOPENED)
    assert picture.story.saga.state is State.REOPENED
    assert not picture.decided and not waits_for_a_person(picture.story.saga)
    assert pictured(*CONTRADICTED).decided and waits_for_a_person(told(*CONTRADICTED).saga)


def test_a_decision_that_the_step_does_not_wait_for_is_refused_by_name() -> None:
    story = told(*STUCK)
    with pytest.raises(
        Problem, match=r"one on r\.s \(.*\) waits for no decision: it is completed, and the flow is stuck; two on a\.b .* does"
    ):
        _check(story, _step_called(story, CHAIN.ids["one"]), Decision.RETRY)
    _check(story, _step_called(story, CHAIN.ids["two"][:8]), Decision.RESOLVED)
    unknown = told(CHAIN.started(), CHAIN.completed("one"), CHAIN.completed("two"), CHAIN.failed("last", Effect.UNKNOWN))
    assert unknown.saga.state is State.STUCK
    with pytest.raises(Problem, match=r"nobody can tell what it did, or it cannot be undone; expected resolved or skip, found retry"):
        _check(unknown, _step_called(unknown, CHAIN.ids["last"]), Decision.RETRY)


def test_an_optional_step_that_failed_may_be_given_another_chance_while_its_flow_runs_and_no_other_word() -> None:
    story = Story("r.s", agent("needed", "r.s"), agent("nice", "r.s", optional=True))
    running = told(story.started(), story.failed("nice"), story=story)
    nice = _step_called(running, story.ids["nice"])
    _check(running, nice, Decision.RETRY)
    with pytest.raises(Problem, match=r"it is optional and failed, and the flow goes on without it; expected retry, found skip"):
        _check(running, nice, Decision.SKIP)
    (shown,) = (step for step in saga_view(running)["steps"] if step["agent"] == "nice")
    assert shown["settled"] and shown["next"] == [f"maypole saga decide flow --step {nice.step_id[:8]} --decision retry --note WHY"]
    assert not running.waiting and not waits_for_a_person(running.saga)
    over = told(story.started(), story.failed("nice"), story.completed("needed"), story=story)
    assert over.saga.state is State.COMMITTED and _step_called(over, story.ids["nice"]).choices == ()


def test_a_step_is_called_by_its_id_or_a_beginning_that_is_its_alone() -> None:
    story = told(*STUCK)
    assert _step_called(story, CHAIN.ids["two"]).agent == "two"
    with pytest.raises(Problem, match="found no step 'nowhere'; it has") as missing:
        _step_called(story, "nowhere")
    assert missing.value.code == 3
    with pytest.raises(Problem, match="found no step ''"):
        _step_called(story, "")


def test_the_beginning_of_several_steps_ids_means_none_of_them() -> None:
    fan = Story("r.s", *(agent(f"agent{number}", "r.s") for number in range(17)))
    by_first: dict[str, int] = {}
    for step_id in fan.ids.values():
        by_first[step_id[0]] = by_first.get(step_id[0], 0) + 1
    shared = next(first for first, count in by_first.items() if count > 1)
    with pytest.raises(Problem, match="expected the beginning of one step's id, found that of") as ambiguous:
        _step_called(told(fan.started(), story=fan), shared)
    assert ambiguous.value.code == 2


def test_what_a_person_decided_is_told_with_who_and_why() -> None:
    story = told(*STUCK, CHAIN.decided("two", Decision.SKIP), CHAIN.undone("one"))
    assert story.saga.state is State.COMPENSATED_MANUAL
    assert standings(story) == {"one": "undone", "two": "skipped", "last": "failed"}
    assert saga_view(story)["steps"][1]["decisions"] == [
        {"at": "1970-01-01T00:00:06.000000Z", "decision": "skip", "by": "somebody", "note": "seen to"}
    ]


def test_of_two_who_decide_about_one_step_only_the_first_counts() -> None:
    first = CHAIN.decided("two", Decision.RETRY)
    second = CHAIN.decided("two", Decision.SKIP).model_copy(update={"by": "somebody else"})
    story = told(*STUCK, first, second)
    assert [record for _, record in story.decisions()] == [first]
    assert saga_view(story)["steps"][1]["asked"]["command_id"] == CHAIN.command("two", Ask.COMPENSATE, generation=2)


def test_the_live_picture_shows_what_is_fenced_and_undone_and_when() -> None:
    fenced = Story("r.s", agent("one", "r.s", "a.b"), agent("beside", "r.s"), agent("two", "a.b"))
    records = (fenced.started(), fenced.completed("one"), fenced.failed("two"), fenced.fenced("beside"), fenced.undone("one"))
    half, whole = pictured(*records[:3], story=fenced), pictured(*records, story=fenced)
    assert {row.agent: row.after.turn for row in half.rows() if row.after} == {"beside": Turn.FENCING, "one": Turn.UNDOING}
    assert not half.decided and half.left_alone and set(half.owing) == {"beside", "one"}
    rows = {row.agent: row for row in whole.rows()}
    assert (rows["beside"].status, rows["beside"].seconds) == (Status.FENCED, 3.0)
    assert rows["one"].after is not None and (rows["one"].after.turn, rows["one"].after.seconds) == (Turn.UNDONE, 4.0)
    assert whole.decided and not whole.left_alone and whole.seconds == 4.0


def test_lines_tell_each_turn_once_and_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    lines, picture = Lines(), FlowPicture()
    for seen in journaled(UNDONE):
        picture.see(seen)
        lines.show(picture, last=True)
        lines.show(picture, last=True)
    said = [line.split()[:1] + line.split()[3:5] for line in click.unstyle(capsys.readouterr().err).splitlines()]
    assert said == [
        ["ok", "one", "r.s"], ["ok", "two", "a.b"], ["FAILED", "last", "c.d"], ["undone", "two", "a.b"], ["undone", "one", "r.s"],
    ]  # fmt: skip


ENDINGS = {
    "undone": (UNDONE, 4, ("compensated  last failed for good on c.d: rejected", "undone: two, then one, 5.00 s after it began")),
    "stuck": (
        STUCK,
        6,
        (
            "stuck  last failed for good on c.d: rejected; it waits for a person",
            "two on a.b",
            "could not carry it out",
            "its undo failed: no",
            "try: maypole saga decide flow --step",
            "--decision retry",
        ),
    ),
    "vouched for": (
        (*STUCK, CHAIN.decided("two", Decision.RESOLVED), CHAIN.undone("one")),
        4,
        ("compensated_manual", "somebody said resolved: seen to"),
    ),
    "left as it is": (
        (*STUCK, CHAIN.decided("two", Decision.SKIP), CHAIN.undone("one")),
        4,
        ("compensated_manual", "undone: one; left as it is: two; somebody said skip: seen to"),
    ),
    "nothing undone, one left": (
        (*FAILED, CHAIN.undone("two"), CHAIN.undo_failed("one", retryable=False), CHAIN.decided("one", Decision.SKIP)),
        4,
        ("undone: two; left as it is: one",),
    ),
    "left alone": (FAILED, 1, ("aborting  last failed for good", "no coordinator is running")),
    "being undone": (
        (*FAILED, CHAIN.undone("two")),
        124,
        ("aborting  last failed for good", "not finished after 9 s; still asked: one to compensate r.s"),
    ),
    "reopened, and undone by itself": (
        REOPENED,
        124,
        ("reopened  cancelled by ada@home: ordered twice; not finished after 9 s; still asked: two to fence a.b",),
    ),
    "contradicted after the commit": (
        CONTRADICTED,
        6,
        ("reopened  it waits for a person", "two on a.b", "what was told of it contradicts the commit", "--decision resolved"),
    ),
    "cancelled": (
        (CHAIN.started(), CANCELLED, CHAIN.fenced("one")),
        4,
        ("cancelled by ada@home: ordered twice", "nothing had to be undone"),
    ),
}


@pytest.mark.parametrize(("records", "code", "words"), ENDINGS.values(), ids=ENDINGS)
def test_the_exit_code_and_the_words_tell_the_same(
    records: Sequence[Event], code: int, words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert told_end(pictured(*records), 9) == code
    said = click.unstyle(capsys.readouterr().err)
    for word in words:
        assert word in said


def test_a_flow_that_went_on_without_an_optional_step_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story("r.s", agent("needed", "r.s"), agent("nice", "r.s", optional=True))
    failed = story.failed("nice").model_copy(update={"parents": (story.root.event_id,)})
    records = (story.started(), failed, story.completed("needed"))
    assert told_end(pictured(*records, story=story), 9) == 0
    said = click.unstyle(capsys.readouterr().err)
    assert "every expected step is done but for nice, optional and failed, in 2.00 s" in said and "try: maypole dlq list nice\n" in said
    picture = pictured(*records, story=story)
    picture.see(Buried("nice", story.root.event_id, 1, 4, "rejected", "no"))
    assert told_end(picture, 9) == 0 and "try: maypole dlq show nice/1/4\n" in click.unstyle(capsys.readouterr().err)
    assert told_end(picture, 9, dlq_at_hand=False) == 0 and "try:" not in click.unstyle(capsys.readouterr().err)


@pytest.mark.parametrize(("decision", "standing"), [(Decision.SKIP, "skipped"), (Decision.RESOLVED, "resolved")])
def test_a_flow_that_went_on_by_a_persons_word_says_so(capsys: pytest.CaptureFixture[str], decision: Decision, standing: str) -> None:
    story = Story("r.s", agent("point", "r.s", "a.b", kind="pivot"), agent("after", "a.b", kind="retriable"))
    records = (story.started(), story.completed("point"), story.failed("after", Effect.UNKNOWN), story.decided("after", decision))
    assert told_end(pictured(*records, story=story), 9) == 0
    said = click.unstyle(capsys.readouterr().err)
    assert f"every expected step is done but for after, {standing} by somebody, in 3.00 s" in said, said


def served(how: Mapping[str, str], *records: Event, story: Story = CHAIN) -> FlowPicture:
    """As `pictured`, with what lay beside the `StepCompleted` of each agent."""
    picture = FlowPicture()
    for seen in journaled(records, story):
        picture.see(replace(seen, degraded=how.get(getattr(seen.record, "agent", ""))))
    return picture


def test_a_flow_that_a_fallback_served_says_so_however_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    how = {"one": "default", "two": "inherited"}
    committed = served(how, *FAILED[:3], CHAIN.completed("last"))
    assert told_end(committed, 9) == 0
    assert "every expected step is done, in 3.00 s; degraded: one on r.s (default)\n" in click.unstyle(capsys.readouterr().err)
    for records in (FAILED[:2], STUCK, UNDONE):
        told_end(served(how, *records), 9)
        assert "\n  degraded: one on r.s (default)\n" in click.unstyle(capsys.readouterr().err)
    assert saga_view(committed.story)["degraded"] == [{"step_id": CHAIN.ids["one"], "agent": "one", "on": "r.s", "how": "default"}]
    assert [step["degraded"] for step in saga_view(committed.story)["steps"]] == ["default", "inherited", None]


def test_a_step_is_degraded_by_the_completion_that_counts() -> None:
    again = [*journaled((CHAIN.started(), CHAIN.completed("one"), CHAIN.completed("one")))]
    story = FlowStory()
    for seen in (again[0], again[1], replace(again[2], degraded="default")):
        story.see(seen)
    assert story.degraded == []


def test_a_late_flow_says_that_its_deadline_passed() -> None:
    assert told(CHAIN.started(), CHAIN.late("flow")).because == "its deadline passed"
    assert told(CHAIN.started(), CHAIN.late(CHAIN.ids["one"])).because == "one on r.s did not end in time"
    story = told(CHAIN.started(), CHAIN.completed("one"), CHAIN.begun("two"), CHAIN.abandoned("two"))
    assert story.because == "two was stopped under way on a.b, and nobody knows what it did"
    assert standings(story)["two"] == Standing.ABANDONED


PIVOT_UNDER_WAY = (CHAIN.started(), CHAIN.completed("one"), CHAIN.completed("two"), CHAIN.begun("last"), CANCELLED)
CANCELLATIONS = {
    "the pivot has not said": (PIVOT_UNDER_WAY, 124),
    "it had happened": ((*PIVOT_UNDER_WAY, CHAIN.completed("last")), 1),
    "nobody can tell": ((*PIVOT_UNDER_WAY, CHAIN.abandoned("last")), 6),
    "it never ran": ((*PIVOT_UNDER_WAY[:3], CANCELLED, CHAIN.fenced("last")), 0),
    "it is undone once more": (REOPENED, 0),
    "the commit is contradicted": (CONTRADICTED, 6),
    "it is undone": ((*PIVOT_UNDER_WAY[:3], CANCELLED, CHAIN.fenced("last"), CHAIN.undone("two"), CHAIN.undone("one")), 0),
}


@pytest.mark.parametrize(("records", "code"), CANCELLATIONS.values(), ids=CANCELLATIONS)
def test_a_flow_counts_as_cancelled_only_where_no_pivot_can_have_been_passed(records: Sequence[Event], code: int) -> None:
    assert cancelled_as(told(*records)) == code


def test_a_pivot_that_may_have_been_passed_is_named_when_its_flow_is_cancelled() -> None:
    assert [step.agent for step in told(*PIVOT_UNDER_WAY).undecided_pivots] == ["last"]
    assert told(*PIVOT_UNDER_WAY, CHAIN.abandoned("last")).undecided_pivots == []


def test_a_cancel_that_came_too_late_does_not_say_that_the_flow_was_cancelled() -> None:
    story = told(*PIVOT_UNDER_WAY, CHAIN.completed("last"))
    assert story.saga.state is State.COMMITTED
    assert story.because == "cancelled by ada@home: ordered twice, too late: it had passed a point of no return"


def test_of_a_step_that_began_to_act_and_has_not_ended_nobody_knows_the_effect() -> None:
    effects = {step["agent"]: step["effect"] for step in saga_view(told(*PIVOT_UNDER_WAY))["steps"]}
    assert effects == {"one": "APPLIED", "two": "APPLIED", "last": "UNKNOWN"}
    silent = told(*PIVOT_UNDER_WAY, CHAIN.late(CHAIN.command("last", Ask.FENCE)))
    assert [(step["agent"], step["effect"]) for step in stuck_flow(silent)["unsettled"] if step["next"]] == [("last", "UNKNOWN")]
    assert {step["agent"]: step["effect"] for step in saga_view(told(CHAIN.started()))["steps"]} == {"one": "NONE"}


def test_an_agent_that_said_nothing_is_told_from_one_that_could_not() -> None:
    silent = told(*PIVOT_UNDER_WAY, CHAIN.late(CHAIN.command("last", Ask.FENCE)))
    assert [step.person for step in silent.waiting] == ["its agent did not answer the command to fence it"]
    unable = told(*STUCK)
    assert [step.person for step in unable.waiting] == ["its agent was told to compensate it, and could not carry it out"]
    waits = [step["waits_for"] for step in stuck_flow(unable)["unsettled"] if step["next"]]
    assert waits == ["a person: its agent was told to compensate it, and could not carry it out"]
    again = told(*STUCK, CHAIN.decided("two", Decision.RETRY), CHAIN.late(CHAIN.command("two", Ask.COMPENSATE, 2)))
    assert [step.person for step in again.waiting] == ["its agent did not answer the command to compensate it"]
