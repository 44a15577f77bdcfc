"""What is known of one flow: the state that the engine folds. Values only; what they mean is decided elsewhere.

Kept small, because a coordinator holds one for every open flow: of a record only what can still decide something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from maypole.bus.choreography import Choreography
from maypole.schemas.identifiers import CommandId, FlowId, StepId, command_id_of
from maypole.schemas.journal import Decision, Effect


class State(StrEnum):
    """What a flow is called, by everybody who asks."""

    RUNNING = "running"
    COMMITTED = "committed"
    ABORTING = "aborting"
    COMPENSATED = "compensated"
    COMPENSATED_MANUAL = "compensated_manual"
    """Compensated, and a person vouches for part of it."""
    FORWARD_ONLY = "forward_only"
    """Past a pivot: there is no way back."""
    STUCK = "stuck"
    """Not an end: something waits for a person."""
    REOPENED = "reopened"
    """It had ended, and then a record contradicted its end."""

    @property
    def is_end(self) -> bool:
        return self in (State.COMMITTED, State.COMPENSATED, State.COMPENSATED_MANUAL)


class Phase(IntEnum):
    """What has been decided; the rows of the decision table. `State` is this and what people need to know beside it."""

    RUNNING = 0
    ABORTING = 1
    FORWARD_ONLY = 2
    COMMITTED = 3
    COMPENSATED = 4
    REOPENED = 5
    """Was compensated, and no longer is."""


class Outcome(IntEnum):
    """How a step ended, each overriding those before it: whatever order they are told in, the same is known in the end."""

    OPEN = 0
    FENCED = 1
    """It never ran and never will."""
    FAILED = 2
    ABANDONED = 3
    """Stopped under way."""
    COMPLETED = 4


class Ask(StrEnum):
    """The kinds of commands."""

    FENCE = "fence"
    COMPENSATE = "compensate"
    EXPIRE = "expire"
    """The parts of a join did not come in time: end it, one way or the other."""
    RETRY = "retry"
    """An operator has given a failed step another chance."""


class Why(StrEnum):
    """What kept a flow from going on as it began."""

    FAILURE = "failure"
    """Of a step, or that it was stopped under way."""
    LATE = "late"
    CANCELLED = "cancelled"


class Cause(NamedTuple):
    """For people; nothing is decided by it. `about` is the step, the flow where all of it was late, or who cancelled and why."""

    why: Why
    about: str


class EventRef(NamedTuple):
    """An event of the flow."""

    event_id: str
    type: str


class Decided(NamedTuple):
    """What people decided about a step."""

    decision: Decision | None = None
    """The last one that vouches for it."""
    while_open: bool = False
    """That was said while the outcome was unknown."""
    generation: int = 1
    """Of commands; every decision raises it."""
    chance: int = 1
    """The generation from which on a failure counts: earlier ones were forgiven."""


UNDECIDED: Final = Decided()
"""Shared by nearly all steps."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the journal says of one step. Names of agent and subscription are empty until a record tells them."""

    agent: str = ""
    subscription: str = ""
    outcome: Outcome = Outcome.OPEN
    effect: Effect = Effect.NONE
    outputs: tuple[EventRef, ...] = ()
    started: bool = False
    """It announced that it would act."""
    expired: bool = False
    """It is a join whose time is up."""
    undone: bool = False
    stuck: Ask | None = None
    """The command that it did not answer in time, or could not carry out. Only a person's decision removes it."""
    decided: Decided = UNDECIDED
    ended_ms: int = 0
    """By the broker's clock, where the time of a join follows from it; else 0."""

    @property
    def decision(self) -> Decision | None:
        return self.decided.decision

    @property
    def generation(self) -> int:
        return self.decided.generation

    @property
    def chance(self) -> int:
        return self.decided.chance


NOTHING_KNOWN: Final = Facts()


class Asked(NamedTuple):
    """A command without its answer. `since_ms` is the broker's time of the record that made it necessary."""

    kind: Ask
    generation: int
    agent: str
    subscription: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Command:
    """What an agent is to be told. Sent as often as needed: its id never changes, so it is one command."""

    flow_id: FlowId
    step_id: StepId
    kind: Ask
    generation: int
    agent: str
    subscription: str
    since_ms: int

    @property
    def id(self) -> CommandId:
        return command_id_of(self.flow_id, self.step_id, self.kind.value, self.generation)


class Violation(StrEnum):
    """A record that ought not to exist. It is never dropped: facts of it are kept, and somebody is told."""

    CONTRADICTS_COMMIT = "contradicts_commit"
    CONTRADICTS_COMPENSATION = "contradicts_compensation"
    CONTRADICTS_OUTCOME = "contradicts_outcome"
    """A step that ended one way is said to have ended another way."""
    FENCED_UNASKED = "fenced_unasked"
    UNDONE_UNASKED = "undone_unasked"
    DECISION_REFUSED = "decision_refused"
    """An operator decided on a step that waits for no decision."""


@dataclass(frozen=True, slots=True)
class Alarm:
    flow_id: FlowId
    violation: Violation
    step_id: StepId
    detail: str


def _nothing() -> Mapping[StepId, Any]:
    return EMPTY


EMPTY: Final[Mapping[StepId, Any]] = MappingProxyType({})
"""Shared by all sagas: an empty mapping of its own would be a tenth of a flow's memory."""


@dataclass(frozen=True, slots=True)
class Saga:
    """The state of one flow. `choreography` is None until the first `FlowStarted`; records before it are kept.

    Times are the broker's, in milliseconds since the epoch. Equal journals give equal sagas.
    """

    flow_id: FlowId
    phase: Phase = Phase.RUNNING
    stuck: bool = False
    """Something waits for a person."""
    choreography: Choreography | None = None
    roots: tuple[EventRef, ...] = ()
    started_ms: int = 0
    deadline_ms: int = 0
    """From `started_ms` on."""
    overdue: bool = False
    """The flow's deadline has fired."""
    steps: Mapping[StepId, Facts] = field(default_factory=_nothing)
    asked: Mapping[StepId, Asked] = field(default_factory=_nothing)
    contradictions: tuple[StepId, ...] = ()
    """Steps whose records contradict a commit; a person has to look at each."""
    cause: Cause | None = None
    """What made it abort, the first word in the journal."""
    owed: tuple[StepId, ...] | None = field(default=None, compare=False)
    """Of a running flow: the steps that are expected and open, where they have been worked out. Follows from the rest."""

    @property
    def state(self) -> State:
        if self.phase is Phase.COMMITTED:
            return State.REOPENED if self.contradictions else State.COMMITTED
        if self.phase is Phase.COMPENSATED:
            return State.COMPENSATED_MANUAL if self.manual else State.COMPENSATED
        return State.STUCK if self.stuck else _STATES[self.phase]

    @property
    def manual(self) -> bool:
        """Whether a person vouches for a step."""
        return any(facts.decision is not None for facts in self.steps.values())

    def of(self, step_id: StepId) -> Facts:
        return self.steps.get(step_id, NOTHING_KNOWN)

    def with_step(self, step_id: StepId, facts: Facts, owed: tuple[StepId, ...] | None) -> Saga:
        """What `dataclasses.replace` would give, and for every record: made at a third of its price."""
        steps = {**self.steps, step_id: facts}  # as unchangeable as its type says: a proxy is 64 bytes of every flow, and slow to read
        return Saga(
            self.flow_id, self.phase, self.stuck, self.choreography, self.roots, self.started_ms, self.deadline_ms, self.overdue,
            steps, self.asked, self.contradictions, self.cause, owed,
        )  # fmt: skip


_STATES: Final = {
    Phase.RUNNING: State.RUNNING,
    Phase.ABORTING: State.ABORTING,
    Phase.FORWARD_ONLY: State.FORWARD_ONLY,
    Phase.REOPENED: State.REOPENED,
}
