"""Expected against completed: a flow's state is a fold of its journal records, in their order.

Expected is the closure of the roots' steps and of the steps triggered by the outputs of completed ones, computed
anew from all records kept, so a record that arrives before its parent's is neither lost nor believed too early
(after the acknowledgement tree of Apache Storm: Toshniwal et al., "Storm@twitter", SIGMOD 2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType

from maypole.bus.choreography import Choreography
from maypole.schemas.event import Event
from maypole.schemas.identifiers import EventId, FlowId, StepId, step_id_of
from maypole.schemas.journal import FlowStarted, Produced, StepCompleted, StepFailed


class UnknownPin(LookupError):
    """A flow is pinned to a choreography that nobody has recorded: what it is waiting for cannot be told."""


class State(StrEnum):
    RUNNING = "running"
    COMMITTED = "committed"
    ABORTING = "aborting"


@dataclass(frozen=True, slots=True)
class ExpectedStep:
    """A step that the choreography owes the flow."""

    step_id: StepId
    agent: str
    subscription: str
    trigger: Produced


@dataclass(frozen=True)
class FlowState:
    """`choreography` is None until the first `FlowStarted`; records before it are kept."""

    flow_id: FlowId
    state: State = State.RUNNING
    choreography: Choreography | None = None
    roots: tuple[Produced, ...] = ()
    completed: Mapping[str, StepCompleted] = field(default_factory=lambda: MappingProxyType({}))
    failed: Mapping[str, StepFailed] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def expected(self) -> Mapping[StepId, ExpectedStep]:
        found: dict[StepId, ExpectedStep] = {}
        if self.choreography is None:
            return found
        frontier = list(self.roots)
        while frontier:
            event = frontier.pop()
            for reaction in self.choreography.triggered_by(event.type):
                step_id = step_id_of(self.flow_id, reaction.agent, reaction.subscription, EventId(event.event_id))
                if step_id in found:
                    continue
                found[step_id] = ExpectedStep(step_id, reaction.agent, reaction.subscription, event)
                completed = self.completed.get(step_id)
                if completed is not None:
                    frontier += completed.outputs
        return found

    @cached_property
    def owed(self) -> tuple[ExpectedStep, ...]:
        """Expected and neither completed nor failed."""
        return tuple(step for step in self.expected.values() if step.step_id not in self.completed and step.step_id not in self.failed)

    @property
    def has_subscriber(self) -> bool:
        """Whether anything is expected at all: a root that nobody subscribes to never ends by itself."""
        return self.choreography is None or bool(self.expected)


def fold(state: FlowState, record: Event, choreographies: Mapping[str, Choreography]) -> FlowState:
    """The state after one more record. Repeats change nothing; the first decision in the order of the journal wins.

    Raises `UnknownPin` when the flow is pinned to a choreography that `choreographies` does not hold.
    """
    match record:
        case FlowStarted() if state.choreography is None:
            if record.choreography not in choreographies:
                raise UnknownPin(
                    f"flow {state.flow_id} is pinned to the choreography {record.choreography}, which the catalog does not hold"
                )
            return _decided(replace(state, choreography=choreographies[record.choreography], roots=record.roots))
        case StepCompleted() if record.step_id not in state.completed:
            return _decided(replace(state, completed=MappingProxyType({**state.completed, record.step_id: record})))
        case StepFailed() if record.step_id not in state.failed:
            return _decided(replace(state, failed=MappingProxyType({**state.failed, record.step_id: record})))
        case _:
            return state


def _decided(state: FlowState) -> FlowState:
    if state.state is not State.RUNNING:
        return state
    if any(step_id in state.expected for step_id in state.failed):
        return replace(state, state=State.ABORTING)
    if state.expected and all(step_id in state.completed for step_id in state.expected):
        return replace(state, state=State.COMMITTED)
    return state
