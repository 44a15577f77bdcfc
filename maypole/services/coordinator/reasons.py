"""Why a flow ended as it did, in words: from what is known of it, so that everybody who folds its journal says the same."""

from __future__ import annotations

from maypole.services.saga import Outcome, Saga, State, Unsettled


def reason_of(saga: Saga) -> str:
    """Of a flow that came to its end."""
    match saga.state:
        case State.COMMITTED:
            return "every step that was expected has completed"
        case State.COMPENSATED:
            return f"{_cause(saga)}; nothing is left of it"
        case State.COMPENSATED_MANUAL:
            return f"{_cause(saga)}; nothing is left of it, for part of which a person vouches"
    return _cause(saga)


def described(step: Unsettled) -> str:
    """`delivery on report.published (step 5c1e…): its agent did not answer a command`."""
    who = f"{step.agent or 'an agent that no record names'} on {step.subscription or 'an event that no record names'}"
    return f"{who} (step {step.step_id}): {step.waiting.value if step.waiting else 'waits for the others'}"


def _cause(saga: Saga) -> str:
    ended = [facts for facts in saga.steps.values() if facts.outcome in (Outcome.FAILED, Outcome.ABANDONED)]
    first = min(ended, key=lambda facts: facts.ended_ms, default=None)
    if first is not None:
        verb = "failed" if first.outcome is Outcome.FAILED else "was stopped under way"
        return f"the step of {first.agent} on {first.subscription} {verb}" if first.agent else f"a step {verb}"
    return "its deadline passed" if saga.overdue else "somebody asked for its end"
