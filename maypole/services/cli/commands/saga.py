"""`maypole saga`: one flow as its coordinator sees it, and a person's word where it needs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from maypole.services.cli.flow_orders import following_options, who_option
from maypole.services.cli.output import Form, output_option, print_object, print_rows
from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.program import command as typed
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Group, examples

if TYPE_CHECKING:
    from maypole.services.cli.flow_story import FlowStory, StepStory

_SHOWN: Final = ("flow_id", "key", "state", "because", "started_at", "deadline_at", "ended_at")
_STEPS: Final = {"step": "STEP", "agent": "AGENT", "on": "ON", "state": "STATE", "effect": "EFFECT", "what": "WHAT"}
_DECISIONS: Final = ("retry", "resolved", "skip")


@click.group(
    cls=Group,
    epilog=examples("maypole saga show FLOW", "maypole saga decide FLOW --step 1f3a9c2e --decision retry --note 'the disk has room again'"),
)
def command() -> None:
    """What a flow has done, what is being undone, and what waits for a person's decision."""


@command.command(
    "show",
    epilog=examples("maypole saga show FLOW", "maypole saga show FLOW -o json")
    + """

\b
A step is possible (it may run, nobody can tell), owed, started, completed, failed, abandoned, fenced (it never ran and never
will), undone, or a person vouches for it: resolved, skipped. One whose handler was not called because its circuit breaker was
open is degraded (skip, cached, default, alert), and so is its flow; what came of it says inherited.""",
)
@click.argument("flow")
@output_option
@asynchronous
async def show(session: Session, flow: str, form: Form) -> int:
    """One flow: its state, its steps, which of them keep it from its end, what was undone and by which command.

    Told from the journal alone, so it is also told where no coordinator runs.
    """
    from maypole.services.cli.bystanders import bystanders
    from maypole.services.cli.connection import connected
    from maypole.services.cli.flow_ending import served_instead, told_without_subscriber
    from maypole.services.cli.flow_histories import story_of
    from maypole.services.cli.saga_views import saga_view

    async with connected(session) as platform:
        story = await story_of(platform, flow)
        root = None if story.state is None or story.state.has_subscriber else story.state.roots[0].type
        nobody = None if root is None else told_without_subscriber(root, bystanders(platform.catalog.view, root))
    view = saga_view(story)
    if form != "table":
        print_object(view, form)
        return ExitCode.DONE
    print_object({**{name: view[name] for name in _SHOWN}, "degraded": served_instead(story)}, form)
    click.echo()
    print_rows([_row(step) for step in view["steps"]], form, _STEPS)
    if nobody is not None:
        click.echo(nobody, err=True)
    for line in [line for step in view["steps"] for line in step["next"]]:
        click.echo(f"try: {line}", err=True)
    return ExitCode.DONE


def _row(step: Mapping[str, Any]) -> dict[str, Any]:
    """What a table has room for; JSON tells more."""
    from maypole.services.cli.flow_picture import short

    said = [step["error"]] if step["error"] else []
    said += [f"degraded: {step['degraded']}"] if step["degraded"] else []
    for what in ("fenced", "undone"):
        if step[what] is not None:
            by = f"by command {short(step[what]['command_id'])}" if step[what]["command_id"] else "by its agent"
            said.append(f"{what} {by} at {step[what]['at'][11:23]}")
    said += [f"its undo failed: {error['error']}" for error in step["undo_errors"][-1:]]
    said += [f"{each['by']} said {each['decision']}: {each['note']}" for each in step["decisions"]]
    if not step["settled"]:
        said.append(f"waits for {step['waits_for']}")
    return {**step, "step": short(step["step_id"]), "what": "; ".join(said)}


@command.command(
    "decide",
    epilog=examples(
        "maypole saga decide FLOW --step 1f3a9c2e --decision retry --note 'the disk has room again'",
        "maypole saga decide FLOW --step 1f3a9c2e --decision resolved --note 'refunded by hand, receipt 77'",
        "maypole saga decide FLOW --step 1f3a9c2e --decision skip --note 'the customer keeps it'",
    )
    + """

\b
Exit codes: 0 the decision stands in the flow's journal; 1 the step waits for no such decision, or somebody was faster;
3 there is no such flow or step.""",
)
@click.argument("flow")
@click.option("--step", required=True, metavar="STEP", help="The step's id, or as much of its beginning as tells it from the others.")
@click.option("--decision", required=True, type=click.Choice(_DECISIONS), help="What becomes of it; see above.")
@click.option("--note", required=True, metavar="TEXT", help="Why, for whoever reads the journal.")
@who_option
@following_options
@output_option
@asynchronous
async def decide(session: Session, flow: str, step: str, decision: str, note: str, by: str, timeout: float, form: Form) -> int:
    """Decide about a step that waits for a person, then show what follows.

    retry: ask its agent once more. resolved: you have seen to it, nothing of it is left; if it turns out that it had an
    effect after all, that is undone. skip: leave whatever it did as it is.

    Of a flow that had ended well, and of which something else was told later, no step is asked again: either word takes note.

    The decision is journaled with who and why, which saga show tells for as long as the journal is kept. A flow that ends
    undone with a person's word for a step is compensated_manual; one that goes forward past a step and ends well, committed.

    -o json prints one object when the flow was watched: `step_id`, `decision`, `by` and `note`, as they stand in the journal,
    and what publish --follow tells: `state`, `reason`, `degraded` and `steps`.
    """
    from maypole.schemas.journal import Decision
    from maypole.services import operators
    from maypole.services.cli.connection import connected
    from maypole.services.cli.flow_histories import story_of
    from maypole.services.cli.flow_orders import show_what_follows, written

    written("--note", note)
    chosen = Decision(decision.upper())
    async with connected(session) as platform:
        story = await story_of(platform, flow)
        found = _step_called(story, step)
        _check(story, found, chosen)
        record, _ = await operators.decide(platform, story.saga, found.step_id, chosen, by, note, subject=story.business_key)
        after = await story_of(platform, flow)
        if record not in [each for _, each in after.decisions()]:
            raise Problem(
                f"the decision was written, and counts for nothing: the step has changed meanwhile ({_standing(after, found)})",
                ExitCode.FAILED,
                typed("saga", "show", flow),
            )
        click.echo(f"{decision}, said by {by}: {found.agent} on {found.subscription}", err=True)
        said = {"step_id": found.step_id, "decision": decision, "by": by, "note": note}
        await show_what_follows(platform, after, timeout, form, said)
    return ExitCode.DONE


def _step_called(story: FlowStory, called: str) -> StepStory:
    """By its id or an unambiguous beginning of it. Raises `Problem`."""
    steps = story.steps()
    found = [step for step in steps if step.step_id == called] or [step for step in steps if called and step.step_id.startswith(called)]
    if len(found) == 1:
        return found[0]
    known = _listed(steps)
    flow = story.saga.flow_id
    if found:
        raise Problem(f"--step: expected the beginning of one step's id, found that of {len(found)}: {_listed(found)}", ExitCode.USAGE)
    raise Problem(
        f"expected a step of flow {flow}, found no step {called!r}; it has {known}", ExitCode.NOT_FOUND, typed("saga", "show", flow)
    )


def _listed(steps: Sequence[StepStory]) -> str:
    return ", ".join(f"{step.step_id} ({step.agent} on {step.subscription})" for step in steps) or "none yet"


def _check(story: FlowStory, step: StepStory, chosen: str) -> None:
    from maypole.services.saga import Waiting

    if chosen in step.choices:
        return
    shown = typed("saga", "show", story.saga.flow_id)
    where = f"{step.agent} on {step.subscription} ({step.step_id})"
    if not step.choices:
        others = [f"{each.agent} on {each.subscription} ({each.step_id})" for each in story.waiting]
        waiting = f"; {' and '.join(others)} do{'es' if len(others) == 1 else ''}" if others else "; none of this flow does"
        raise Problem(
            f"{where} waits for no decision: it is {step.standing}, and the flow is {story.saga.state}{waiting}", ExitCode.FAILED, shown
        )
    possible = " or ".join(choice.lower() for choice in step.choices)
    why = step.person or Waiting.FOR_ANOTHER_CHANCE.value
    raise Problem(f"{where}: {why}; expected {possible}, found {chosen.lower()}", ExitCode.FAILED, shown)


def _standing(story: FlowStory, step: StepStory) -> str:
    now = next((each for each in story.steps() if each.step_id == step.step_id), step)
    said = [f"{record.by} said {record.decision.lower()}" for _, record in now.told.decisions[:1]]
    return ", ".join((f"it is {now.standing}", *said))
