"""Journal records of a scenario, named by short keys: `("done", 2, 0)` is step 2 completed with its first choice of outputs."""

from __future__ import annotations

from datetime import UTC, datetime

from maypole.schemas.event import Event
from maypole.schemas.identifiers import StepId, command_id_of
from maypole.schemas.journal import (
    CompensationFailed,
    DeadlineFired,
    Decision,
    Effect,
    OperatorDecided,
    Produced,
    StepAbandoned,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepFenced,
    StepStarted,
)
from maypole.services.saga import Ask
from tests.model.scenario import FLOW, Scenario

_NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_LONG_AGO = datetime.fromtimestamp(0, UTC)


class Records:
    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._made: dict[tuple[object, ...], Event] = {}

    def __call__(self, key: tuple[object, ...]) -> Event:
        record = self._made.get(key)
        if record is None:
            record = self._made[key] = self._record(key)
        return record

    def _record(self, key: tuple[object, ...]) -> Event:
        match key:
            case ("flow late",):
                return DeadlineFired(scope=FLOW, due=_LONG_AGO)
            case ("command late", str(scope)):
                return DeadlineFired(scope=scope, due=_LONG_AGO)
            case (str(kind), int(index), *rest):
                step = self._scenario.steps[index]
                return self._of_step(kind, step.step_id, step.reaction.agent, step.reaction.subscription, index, rest)
        raise ValueError(f"expected the key of a record, found {key}")

    def _of_step(self, kind: str, step_id: StepId, agent: str, subscription: str, index: int, rest: list[object]) -> Event:
        match kind, rest:
            case "started", [int(attempt)]:
                return StepStarted(step_id=step_id, agent=agent, subscription=subscription, parents=(), attempt=attempt, lease_until=_NOON)
            case "done", [Effect() as effect, int(choice)]:
                options = self._scenario.steps[index].options
                outputs = options[choice] if choice >= 0 else ()
                return StepCompleted(
                    step_id=step_id, agent=agent, subscription=subscription, parents=(), effect=effect,
                    outputs=tuple(Produced(event_id=each.event_id, type=each.type, digest=bytes(32)) for each in outputs),
                )  # fmt: skip
            case "failed", [Effect() as effect, int(generation)]:
                return StepFailed(
                    step_id=step_id, agent=agent, subscription=subscription, parents=(), reason="rejected", detail="",
                    attempts=1, effect=effect, generation=generation,
                )  # fmt: skip
            case "abandoned", [int(generation)]:
                return StepAbandoned(step_id=step_id, generation=generation)
            case "fenced", [int(attempts)]:
                return StepFenced(step_id=step_id, attempts=attempts)
            case "compensated", [int(generation)]:
                return StepCompensated(step_id=step_id, command_id=command_id_of(FLOW, step_id, Ask.COMPENSATE.value, generation))
            case "undo failed", [int(generation)]:
                command_id = command_id_of(FLOW, step_id, Ask.COMPENSATE.value, generation)
                return CompensationFailed(step_id=step_id, command_id=command_id, retryable=False, detail="")
            case "late", []:
                return DeadlineFired(scope=step_id, due=_LONG_AGO)
            case "decided", [Decision() as decision, int(generation)]:
                return OperatorDecided(step_id=step_id, decision=decision, note="seen to", by="somebody", generation=generation)
        raise ValueError(f"expected the key of a step's record, found {kind} {rest}")
