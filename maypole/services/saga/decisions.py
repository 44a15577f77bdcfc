"""People: which steps wait for a decision, and what a decision does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from maypole.schemas.identifiers import StepId
from maypole.schemas.journal import Decision, Effect, OperatorDecided
from maypole.services.saga.facts import Ask, Outcome, Phase, Saga
from maypole.services.saga.forward import Forward
from maypole.services.saga.news import Report
from maypole.services.saga.table import News
from maypole.services.saga.undoing import Undoing, is_aborting


class Waiting(Enum):
    """What a step needs a person for."""

    FOR_AN_ANSWER = "its agent did not answer a command, or could not carry it out"
    FOR_ANOTHER_CHANCE = "it is optional and failed, and the flow goes on without it"
    TO_GO_FORWARD = "it failed or is late, and there is no way back"
    FOR_A_WORD = "nobody can tell what it did, or it cannot be undone"
    FOR_NOTICE = "what was told of it contradicts the commit"


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A step that keeps its flow from an end. `asked` is the command without answer; `waiting` is None while no person is needed.

    `generation` is what a decision on it has to name. Agent and subscription are empty where no record has told them.
    """

    step_id: StepId
    agent: str
    subscription: str
    outcome: Outcome
    effect: Effect
    asked: Ask | None
    waiting: Waiting | None
    generation: int


def unsettled(saga: Saga) -> tuple[Unsettled, ...]:
    """Exactly what is left before the flow can end, first causes first; in a flow that ended, what contradicts its end."""
    match saga.phase:
        case Phase.ABORTING | Phase.REOPENED:
            undoing = Undoing(saga)
            # One that was answered too late may be settled, and still waits for the word that lets the flow end.
            late = (step_id for step_id, facts in saga.steps.items() if facts.stuck is not None and step_id not in undoing.unsettled)
            return tuple(_unsettled(saga, undoing, step_id) for step_id in (*undoing.unsettled, *late))
        case Phase.RUNNING | Phase.FORWARD_ONLY:
            forward = Forward(saga)
            left = (place for place in forward.reach.values() if not forward.is_done(place) or place.facts.stuck is not None)
            return tuple(_unsettled(saga, forward, place.step_id) for place in left)
    forward = Forward(saga)
    return tuple(_unsettled(saga, forward, step_id) for step_id in saga.contradictions)


def _unsettled(saga: Saga, way: Forward | Undoing, step_id: StepId) -> Unsettled:
    facts, place, asked = saga.of(step_id), way.reach.get(step_id), saga.asked.get(step_id)
    agent, subscription = (facts.agent, facts.subscription) if place is None else (place.reaction.agent, place.reaction.subscription)
    return Unsettled(
        step_id, agent, subscription, facts.outcome, facts.effect, None if asked is None else asked.kind,
        waiting_for(saga, step_id, way), facts.generation,
    )  # fmt: skip


def waiting_for(saga: Saga, step_id: StepId, way: Forward | Undoing | None = None) -> Waiting | None:
    """`way`: the one that the flow goes, for whoever asks about many steps."""
    if step_id in saga.contradictions:
        return Waiting.FOR_NOTICE
    if saga.of(step_id).stuck is not None:
        return Waiting.FOR_AN_ANSWER
    if saga.phase in (Phase.ABORTING, Phase.REOPENED):
        undoing = way if isinstance(way, Undoing) else Undoing(saga)
        return Waiting.FOR_A_WORD if step_id in (*undoing.beyond_undo, *undoing.unexpected) else None
    if saga.phase not in (Phase.RUNNING, Phase.FORWARD_ONLY):
        return None
    forward = way if isinstance(way, Forward) else Forward(saga)
    place = forward.reach.get(step_id)
    if place is None:
        return None
    if place.failed_harmlessly:
        return Waiting.FOR_ANOTHER_CHANCE
    return Waiting.TO_GO_FORWARD if forward.needs_a_person(place) else None


def choices(saga: Saga, step_id: StepId) -> tuple[Decision, ...]:
    """The decisions that help this step now; none where it waits for nobody."""
    # What contradicts a commit is taken note of, whatever is said. To offer another try there would promise one.
    useful = [each for each in Decision if each is not Decision.RETRY or step_id not in saga.contradictions]
    return tuple(decision for decision in useful if _would_be_taken(saga, step_id, decision))


def _would_be_taken(saga: Saga, step_id: StepId, decision: Decision) -> bool:
    facts = saga.of(step_id)
    record = OperatorDecided(step_id=step_id, decision=decision, note="", by="?", generation=facts.generation)
    return decided(saga, Report(News.DECISION, step_id, facts, "", record)) is not None


def decided(saga: Saga, report: Report) -> Saga | None:
    """What a person decided; None where nothing waits for this decision."""
    record, facts = report.record, report.facts
    assert isinstance(record, OperatorDecided)
    if record.generation != facts.generation:
        return None
    after = replace(facts, stuck=None, decided=facts.decided._replace(generation=facts.generation + 1))
    waiting = waiting_for(saga, report.step_id)
    if waiting is Waiting.FOR_NOTICE:
        others = tuple(each for each in saga.contradictions if each != report.step_id)
        return replace(replace(report, facts=after).kept(saga), contradictions=others)
    if record.decision is not Decision.RETRY:
        if waiting is None or waiting is Waiting.FOR_ANOTHER_CHANCE:
            return None
        open_then = facts.stuck is Ask.FENCE or facts.outcome is Outcome.OPEN
        vouched = after.decided._replace(decision=record.decision, while_open=open_then)
        return replace(report, facts=replace(after, decided=vouched)).kept(saga)
    if waiting in (None, Waiting.FOR_A_WORD) or (is_aborting(saga.phase) and report.step_id in Undoing(saga).beyond_undo):
        return None  # there is nothing to try again: a person has to find out what it did
    forward = waiting is not Waiting.FOR_AN_ANSWER or facts.stuck is Ask.RETRY
    if forward and (facts.outcome in (Outcome.FENCED, Outcome.ABANDONED) or facts.decision is not None):
        return None  # its agent has promised that no other attempt follows; or what would follow was fenced on a person's word
    if forward and facts.outcome is not Outcome.COMPLETED:
        # Its end is forgiven, and what is told of it from now on counts.
        forgiven = after.decided._replace(chance=after.generation)
        after = replace(after, outcome=Outcome.OPEN, effect=Effect.NONE, expired=False, decided=forgiven, ended_ms=0)
    return replace(report, facts=after).kept(saga)
