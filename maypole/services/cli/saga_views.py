"""A flow as its coordinator sees it, as data: what `saga show` and `flows stuck` print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from maypole.schemas.envelope import rfc3339
from maypole.schemas.identifiers import trace_id_of
from maypole.services.cli.flow_ending import told_without_subscriber
from maypole.services.cli.flow_histories import Unreadable
from maypole.services.cli.flow_picture import FlowPicture, short
from maypole.services.cli.flow_story import At, FlowStory, StepStory
from maypole.services.cli.program import command
from maypole.services.saga import Outcome, Saga, State, unsettled
from maypole.services.saga.undoing import is_aborting


def saga_view(story: FlowStory) -> dict[str, Any]:
    """Times are RFC 3339 in UTC, by the broker's clock."""
    saga = story.saga
    return {
        "flow_id": saga.flow_id,
        "trace_id": trace_id_of(saga.flow_id),
        "key": story.business_key,
        "state": saga.state.value,
        "because": story.because or None,
        "choreography": None if saga.choreography is None else saga.choreography.hash,
        "started_at": _time(story.started_ms),
        "deadline_at": _time(saga.started_ms + saga.deadline_ms) if saga.started_ms else None,
        "ended_at": _time(story.ended_ms),
        "degraded": degraded_steps(story),
        "steps": [_step(story, step) for step in story.steps()],
    }


def degraded_steps(story: FlowStory) -> list[dict[str, Any]]:
    """Those whose handler was not called, and what was done instead: `skip`, `cached`, `default` or `alert`."""
    return [
        {"step_id": step.step_id, "agent": step.agent or None, "on": step.subscription or None, "how": step.degraded}
        for step in story.degraded
    ]


UNWATCHED: Final[Mapping[str, Any]] = dict.fromkeys(("state", "reason", "degraded", "steps"))
"""The fields of `outcome` where the watching was interrupted."""


def outcome(picture: FlowPicture) -> dict[str, Any]:
    """Where a flow stands that was watched, for whoever scripts: its steps that came to an end, and why it did not go on as it began."""
    story, no_agent = picture.story, ""
    if picture.without_subscriber and picture.state is not None:
        no_agent = told_without_subscriber(picture.state.roots[0].type, picture.bystanders)
    return {
        "state": State.RUNNING.value if picture.state is None else story.saga.state.value,
        "reason": story.because or no_agent or None,
        "degraded": degraded_steps(story),
        "steps": [
            {
                "step_id": step.step_id,
                "agent": step.agent or None,
                "on": step.subscription or None,
                "state": step.standing.value,
                "ended_at": _time(step.ended_ms),
                "error": step.why or None,
            }
            for step in story.steps()
            if step.end is not None
        ],
    }


def _step(story: FlowStory, step: StepStory) -> dict[str, Any]:
    told, waiting = step.told, step.unsettled
    return {
        "step_id": step.step_id,
        "agent": step.agent or None,
        "on": step.subscription or None,
        "trigger": [event.event_id for event in step.trigger],
        "state": step.standing.value,
        "effect": step.effect.value,
        "ended_at": _time(step.ended_ms),
        "error": step.why or None,
        "degraded": step.degraded,
        "asked": None if step.asked is None else {"kind": step.asked_kind, "at": _time(step.asked.ms), "command_id": step.asked.command_id},
        "fenced": _at(told.fenced),
        "undone": _at(told.undone),
        "undo_errors": [{"at": _time(error.ms), "command_id": error.command_id, "error": error.detail} for error in told.undo_errors],
        "decisions": [
            {"at": _time(ms), "decision": record.decision.lower(), "by": record.by, "note": record.note} for ms, record in told.decisions
        ],
        "settled": waiting is None,
        "waits_for": None if waiting is None else _waits_for(story.saga, step),
        "next": _next(story.saga, step),
    }


def _next(saga: Saga, step: StepStory) -> list[str]:
    return [_to_type(saga, step.step_id, choice.lower()) for choice in step.choices]


def stuck_flow(story: FlowStory) -> dict[str, Any]:
    """A flow that waits for a person, with everything that keeps it from its end."""
    saga, told = story.saga, {step.step_id: step for step in story.steps()}
    steps: list[dict[str, Any]] = [
        {
            "step_id": each.step_id,
            "agent": each.agent or None,
            "on": each.subscription or None,
            "outcome": each.outcome.name.lower(),
            "effect": told[each.step_id].effect.value,
            "asked": each.asked,
            "waits_for": _waits_for(saga, told[each.step_id]),
            "next": _next(saga, told[each.step_id]),
        }
        for each in unsettled(saga)
    ]
    first = next((line for step in steps for line in step["next"]), command("saga", "show", saga.flow_id))
    return {
        "flow_id": saga.flow_id, "state": saga.state.value, "started_at": _time(saga.started_ms),
        "choreography": None if saga.choreography is None else saga.choreography.hash, "unsettled": steps, "next": first,
    }  # fmt: skip


def parked_flow(flow: Unreadable) -> dict[str, Any]:
    """One that waits for its choreography: which steps it has, nobody can tell without it."""
    return {
        "flow_id": flow.flow_id, "state": "parked", "started_at": _time(flow.started_ms), "choreography": flow.choreography,
        "unsettled": [], "next": flow.next,
    }  # fmt: skip


def stuck_rows(flow: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One line a step; the flow is named on its first."""
    named = {"flow_id": flow["flow_id"], "state": flow["state"]}
    if not flow["unsettled"]:
        yield {**named, "waits_for": f"its choreography {flow['choreography']}, which the catalog does not hold"}
    for step in flow["unsettled"]:
        yield {**step, **named, "step": short(step["step_id"])}
        named = {"flow_id": " ", "state": " "}


def _waits_for(saga: Saga, step: StepStory) -> str:
    left = step.unsettled
    assert left is not None
    if step.person:
        return f"a person: {step.person}"
    if left.asked is not None:
        return f"its agent, which was asked: {left.asked}"
    return "its agent" if left.outcome is Outcome.OPEN and not is_aborting(saga.phase) else "what follows it"


def _to_type(saga: Saga, step_id: str, choice: str) -> str:
    return f"{command('saga', 'decide', saga.flow_id, '--step', short(step_id), '--decision', choice)} --note WHY"


def _at(at: At | None) -> dict[str, Any] | None:
    return None if at is None else {"at": _time(at.ms), "command_id": at.command_id}


def _time(ms: int | None) -> str | None:
    return None if not ms else rfc3339(ms)
