"""The records of `maypole.journal`: the one total order of what each flow did.

Field by field as the saga protocol has them. The flow, the cause and the choreography stand in the envelope.
`undo_key` and an undo's payload are never written here: what an undo is given lies in the ledger's row alone.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from maypole.schemas.event import DEADLINE_SECONDS_MAX, Event, Value

Generation = Annotated[int, Field(ge=1, lt=2**31)]
"""How often an operator has given a step another chance, counted from 1. Stores keep four bytes of it."""
Identifier = Annotated[str, Field(min_length=1, max_length=1024)]


class Effect(StrEnum):
    """What a step changed outside Kafka."""

    NONE = "NONE"
    APPLIED = "APPLIED"
    UNKNOWN = "UNKNOWN"


class Decision(StrEnum):
    RETRY = "RETRY"
    RESOLVED = "RESOLVED"
    SKIP = "SKIP"


class Produced(Value):
    """An event that belongs to the flow. `digest` is the SHA-256 of its value as it lies on the topic."""

    event_id: Identifier
    type: Identifier
    digest: Annotated[bytes, Field(min_length=32, max_length=32)]


class FlowStarted(Event, type="maypole.flow.started"):
    """Written and acknowledged before the root leaves; by whoever adopts, when a foreign client started the flow.

    `deadline_ms` counts from the broker's append time of this record.
    """

    choreography: Annotated[Identifier, Field(pattern="^[!-~]+$")]  # as in headers, in ASCII; no store has to take a NUL
    deadline_ms: Annotated[int, Field(ge=1, le=DEADLINE_SECONDS_MAX * 1000)]
    roots: Annotated[tuple[Produced, ...], Field(min_length=1)]


class StepStarted(Event, type="maypole.step.started"):
    """Write-ahead of a step with outside effects: acknowledged before it acts."""

    step_id: Identifier
    agent: Identifier
    subscription: Identifier
    parents: tuple[Identifier, ...]
    attempt: Annotated[int, Field(ge=1)]
    lease_until: datetime
    undo_key: str | None = None


class StepCompleted(Event, type="maypole.step.completed"):
    """A step that came to its end, with everything it emitted."""

    step_id: Identifier
    agent: Identifier
    subscription: Identifier
    parents: tuple[Identifier, ...]
    effect: Effect
    outputs: tuple[Produced, ...]
    undo: bytes | None = None


class StepFailed(Event, type="maypole.step.failed"):
    """Final, after the agent's own retries. `reason` is that of the dead letter; `detail` is for people.

    `generation` is the one that failed: a failure of an earlier one, told again after RETRY, is old news.
    """

    step_id: Identifier
    agent: Identifier
    subscription: Identifier
    parents: tuple[Identifier, ...]
    reason: Identifier
    detail: str
    attempts: Annotated[int, Field(ge=0)]
    effect: Effect
    generation: Generation = 1


class StepFenced(Event, type="maypole.step.fenced"):
    """The step never ran and never will.

    `attempts` is how many had begun, by the agent's ledger; none of them changed anything. 0 of a step that announced that it would
    act says that the ledger has forgotten it. None in records of earlier versions.
    """

    step_id: Identifier
    command_id: str | None = None
    attempts: Annotated[int, Field(ge=0)] | None = None


class StepAbandoned(Event, type="maypole.step.abandoned"):
    """The step was stopped under way; what became of its effect is unknown."""

    step_id: Identifier
    command_id: str | None = None
    generation: Generation = 1


class StepCompensated(Event, type="maypole.step.compensated"):
    step_id: Identifier
    command_id: Identifier


class CompensationFailed(Event, type="maypole.compensation.failed"):
    step_id: Identifier
    command_id: Identifier
    retryable: bool
    detail: str


class DeadlineFired(Event, type="maypole.deadline.fired"):
    """`scope` is the flow id, or the id of the step or command that was due."""

    scope: Identifier
    due: datetime


class AbortRequested(Event, type="maypole.abort.requested"):
    by: Identifier
    why: str


class OperatorDecided(Event, type="maypole.operator.decided"):
    """`generation` is the one that is decided on, as the operator saw it: told twice, a decision is one."""

    step_id: Identifier
    decision: Decision
    note: str
    by: Identifier
    generation: Generation = 1


class FlowEnded(Event, type="maypole.flow.ended"):
    """Told to whoever reacts to ends; the fold ignores it."""

    state: Identifier
    reason: str


RECORDS: Final[tuple[type[Event], ...]] = (
    FlowStarted, StepStarted, StepCompleted, StepFailed, StepFenced, StepAbandoned, StepCompensated,
    CompensationFailed, DeadlineFired, AbortRequested, OperatorDecided, FlowEnded,
)  # fmt: skip
