"""A flow as a reader sees it: the engine's state, and beside it the records that tell people how its steps ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

from maypole.bus.choreography import Choreography
from maypole.schemas.event import Event
from maypole.schemas.identifiers import FlowId, StepId
from maypole.schemas.journal import FlowStarted, Produced, StepCompleted, StepFailed
from maypole.services.saga.engine import step
from maypole.services.saga.facts import EventRef, Saga, State
from maypole.services.saga.reach import expected
from maypole.services.saga.undoing import is_decided


@dataclass(frozen=True, slots=True)
class ExpectedStep:
    """A step that the choreography owes the flow. `trigger` is the event, of a join the part that came last."""

    step_id: StepId
    agent: str
    subscription: str
    trigger: EventRef


@dataclass(frozen=True)
class FlowState:
    """`choreography` is None until the first `FlowStarted`; records before it are kept."""

    flow_id: FlowId
    folded: Saga | None = None
    roots: tuple[Produced, ...] = ()
    completed: Mapping[str, StepCompleted] = field(default_factory=lambda: MappingProxyType({}))
    failed: Mapping[str, StepFailed] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def saga(self) -> Saga:
        return self.folded or Saga(self.flow_id)

    @property
    def state(self) -> State:
        return self.saga.state

    @property
    def choreography(self) -> Choreography | None:
        return self.saga.choreography

    @cached_property
    def expected(self) -> Mapping[StepId, ExpectedStep]:
        places = expected(self.saga).values()
        return {
            place.step_id: ExpectedStep(place.step_id, place.reaction.agent, place.reaction.subscription, place.trigger[-1])
            for place in places
        }

    @cached_property
    def owed(self) -> tuple[ExpectedStep, ...]:
        """Expected and not come to its end. Whom a person has gone past owes nothing."""
        left = (place for place in expected(self.saga).values() if not place.is_final and not is_decided(place.facts))
        return tuple(self.expected[place.step_id] for place in left)

    @property
    def has_subscriber(self) -> bool:
        """Whether anything is expected at all: a root that nobody subscribes to never ends by itself."""
        return self.choreography is None or bool(self.expected)


def fold(state: FlowState, record: Event, choreographies: Mapping[str, Choreography], at_ms: int) -> FlowState:
    """The state after one more record: see `engine.step`."""
    saga, _ = step(state.saga, record, at_ms, choreographies)
    match record:
        case FlowStarted() if state.choreography is None:
            return replace(state, folded=saga, roots=record.roots)
        case StepCompleted() if record.step_id not in state.completed:
            return replace(state, folded=saga, completed=MappingProxyType({**state.completed, record.step_id: record}))
        case StepFailed() if record.step_id not in state.failed:
            return replace(state, folded=saga, failed=MappingProxyType({**state.failed, record.step_id: record}))
    return state if saga is state.saga else replace(state, folded=saga)
