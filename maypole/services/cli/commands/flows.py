"""`maypole flows`: where flows stand, and ending one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from maypole.services.cli.flow_orders import following_options, who_option
from maypole.services.cli.output import Form, as_json, output_option, print_rows
from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.program import command as typed
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Group, examples

if TYPE_CHECKING:
    from maypole.services.cli.flow_story import FlowStory

_STUCK = {"flow_id": "FLOW", "state": "STATE", "step": "STEP", "agent": "AGENT", "on": "ON", "outcome": "ENDED", "waits_for": "WAITS FOR"}


@click.group(cls=Group, epilog=examples("maypole flows stuck", "maypole flows cancel FLOW --why 'ordered twice'"))
def command() -> None:
    """Flows that wait for a person, and the end of one that is not wanted any more."""


@command.command("stuck", epilog=examples("maypole flows stuck", "maypole flows stuck -o json"))
@output_option
@asynchronous
async def stuck(session: Session, form: Form) -> int:
    """The flows that only a person's decision leads on, with every step that keeps each from its end.

    A step that waits for nobody is listed with what it waits for. JSON has the command to type for each decision that is possible.
    A flow whose choreography the catalog does not hold is `parked`: its coordinator goes on with it when it is recorded again.
    """
    from maypole.services.cli.connection import connected
    from maypole.services.cli.flow_histories import all_flows, stories_of
    from maypole.services.cli.flow_story import waits_for_a_person
    from maypole.services.cli.saga_views import parked_flow, stuck_flow, stuck_rows

    async with connected(session) as platform:
        found = await all_flows(platform)
        stories = await stories_of(platform, [flow for flow, saga in found.sagas.items() if waits_for_a_person(saga)])
    flows = [stuck_flow(story) for story in stories.values() if waits_for_a_person(story.saga)]
    flows += map(parked_flow, found.unreadable.values())
    flows.sort(key=lambda flow: str(flow["started_at"]))
    if form == "table":
        print_rows([row for flow in flows for row in stuck_rows(flow)], form, _STUCK)
        click.echo(f"try: {flows[0]['next']}" if flows else "no flow waits for a person", err=True)
    elif form == "jsonl":
        for flow in flows:
            click.echo(as_json(flow))
    else:
        click.echo(as_json(flows, indent=2))
    return ExitCode.DONE


@command.command(
    "cancel",
    epilog=examples(
        "maypole flows cancel FLOW --why 'ordered twice'", "maypole flows cancel FLOW --why 'wrong customer' --by ops@example.org -o json"
    )
    + """

\b
Exit codes: 0 the abort stands in the flow's journal, and nothing can overrule it that is known of; 1 the flow has ended, or is past
a point of no return; 3 there is no such flow; 6 it is stuck; 124 it may be past a point of no return, and its agent has not said.""",
)
@click.argument("flow")
@click.option("--why", required=True, metavar="TEXT", help="For whoever reads the journal.")
@who_option
@following_options
@output_option
@asynchronous
async def cancel(session: Session, flow: str, why: str, by: str, timeout: float, form: Form) -> int:
    """End a flow and take back what it did, then show what becomes of it.

    What has not begun is kept from running; what is done is undone, the last first. Past a pivot nothing can be undone:
    such a flow goes on to its end. A pivot that is under way is asked first: it may turn out to have happened (the flow goes on
    to its end), or nobody can tell (the flow is stuck).

    -o json prints one object when the flow was watched: `journaled` (false where it was being undone already, so that nothing
    was written), and what publish --follow tells: `state`, `reason`, `degraded` and `steps`.
    """
    from maypole.services.cli.connection import connected
    from maypole.services.cli.flow_histories import story_of
    from maypole.services.cli.flow_orders import show_what_follows, written
    from maypole.services.operators import request_abort
    from maypole.services.saga import State

    written("--why", why)
    async with connected(session) as platform:
        story = await story_of(platform, flow)
        shown = typed("saga", "show", flow)
        journaled = story.saga.state is State.RUNNING
        match story.saga.state:
            case State.COMMITTED | State.COMPENSATED | State.COMPENSATED_MANUAL as ended:
                raise Problem(f"flow {flow} has ended already: it is {ended}, so there is nothing to cancel", ExitCode.FAILED, shown)
            case State.FORWARD_ONLY:
                raise Problem(
                    f"flow {flow} is past a point of no return, so nothing of it can be undone: it goes on to its end",
                    ExitCode.FAILED,
                    shown,
                )
            case State.RUNNING:
                await request_abort(platform, story.saga, by, why, subject=story.business_key)
                story = await story_of(platform, flow)
                _tell_asked(story, f"cancelled by {by}: {why}")
            case under_way:
                because = f" ({story.because})" if story.because else ""
                click.echo(f"flow {flow} is {under_way} already{because}: nothing was written", err=True)
        story = await show_what_follows(platform, story, timeout, form, {"journaled": journaled})
    return cancelled_as(story)


def _tell_asked(story: FlowStory, cancelled: str) -> None:
    undecided = [f"{step.agent} on {step.subscription}" for step in story.undecided_pivots]
    click.echo(f"the abort is journaled: {cancelled}" if undecided else cancelled, err=True)
    if undecided:
        click.echo(
            f"  {', '.join(undecided)}: a point of no return, and it may have been passed. If it was, the flow goes on to its end; "
            "if nobody can tell, the flow is stuck",
            err=True,
        )


def cancelled_as(story: FlowStory) -> ExitCode:
    """What became of the cancelling, as far as the flow was watched."""
    from maypole.services.cli.flow_story import waits_for_a_person
    from maypole.services.saga import State

    if waits_for_a_person(story.saga):
        return ExitCode.STUCK
    if story.saga.state in (State.COMMITTED, State.FORWARD_ONLY):
        return ExitCode.FAILED
    return ExitCode.TIMED_OUT if story.undecided_pivots else ExitCode.DONE
