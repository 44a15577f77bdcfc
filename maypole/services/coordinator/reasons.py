"""Why a flow ended as it did, in words: from what is known of it, so that everybody who folds its journal says the same."""

from __future__ import annotations

from maypole.schemas.identifiers import StepId
from maypole.schemas.journal import Decision, Effect
from maypole.services.saga import Cause, Facts, Outcome, Saga, State, Unsettled, Why
from maypole.services.saga.reach import expected


def reason_of(saga: Saga) -> str:
    """Of a flow that came to its end."""
    match saga.state:
        case State.COMMITTED:
            return f"every step that was expected has completed{_but_for(saga)}"
        case State.COMPENSATED:
            return f"{_cause(saga)}; nothing is left of it"
        case State.COMPENSATED_MANUAL:
            return f"{_cause(saga)}; nothing is left of it{_left_as_it_is(saga)}"
    return _cause(saga)


def described(step: Unsettled) -> str:
    """`delivery on report.published (step 5c1e…): its agent did not answer a command`."""
    who = f"{step.agent or 'an agent that no record names'} on {step.subscription or 'an event that no record names'}"
    return f"{who} (step {step.step_id}): {step.waiting.value if step.waiting else 'waits for the others'}"


def _cause(saga: Saga) -> str:
    """What kept it from its commit, not what was met on the way back: a fence stops steps under way, too."""
    match saga.cause:
        case Cause(Why.CANCELLED, by_and_why):
            return f"cancelled by {by_and_why}"
        case Cause(Why.LATE, scope) if scope == saga.flow_id:
            return "its deadline passed"
        case Cause(Why.LATE, scope):
            return f"{_named(saga, scope)} did not end in time"
        case Cause(Why.FAILURE, step):
            verb = "was stopped under way" if saga.of(StepId(step)).outcome is Outcome.ABANDONED else "failed"
            return f"{_named(saga, step)} {verb}"
    return "it was undone"


def _but_for(saga: Saga) -> str:
    given_up = [_named(saga, step_id) for step_id, place in expected(saga).items() if place.failed_harmlessly]
    told = f", but for {' and '.join(given_up)}, optional and failed" if given_up else ""
    skipped = [
        _named(saga, step_id)
        for step_id, place in expected(saga).items()
        if place.facts.decision is Decision.SKIP and place.facts.outcome is not Outcome.COMPLETED
    ]
    if skipped:
        return f"{told}; a person went on without {' and '.join(sorted(skipped))}"
    return f"{told}; for part of it a person vouches" if saga.manual else told


def _left_as_it_is(saga: Saga) -> str:
    skipped = sorted(_named(saga, step_id) for step_id, facts in saga.steps.items() if _is_left(facts))
    told = f" but what {' and '.join(skipped)} did, as a person decided" if skipped else ""
    vouched = not skipped or any(facts.decision is Decision.RESOLVED for facts in saga.steps.values())
    return f"{told}, for part of which a person vouches" if vouched else told


def _is_left(facts: Facts) -> bool:
    has_none = facts.outcome is not Outcome.OPEN and facts.effect is Effect.NONE
    return facts.decision is Decision.SKIP and not facts.undone and not has_none


def _named(saga: Saga, step: str) -> str:
    place = expected(saga).get(StepId(step))
    return f"the step {step}" if place is None else f"the step of {place.reaction.agent} on {place.reaction.subscription}"
