"""What a person is shown of a flow: one row a step, filled in as its records and events arrive. No drawing, no waiting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from maypole.schemas.journal import FlowStarted, StepCompleted, StepFailed
from maypole.services.cli.agent_status import Standing
from maypole.services.following import Arrived, Buried, Journaled, Seen
from maypole.services.saga import EventRef, ExpectedStep, FlowState, State

_TEXT_SHOWN_MAX: Final = 80
_UNDER_WAY: Final = (State.RUNNING, State.FORWARD_ONLY)


class Status(Enum):
    AHEAD = "ahead"
    """The choreography may lead here; nothing has triggered it yet."""
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Row:
    """A step. `emitted` are event types; `facts` what is new in its events; `seconds` since the flow started."""

    agent: str
    trigger: str
    status: Status
    seconds: float | None = None
    emitted: tuple[str, ...] = ()
    facts: str = ""
    error: str = ""
    absent: str = ""
    """Of one that is worked on: why nothing may come of it."""


@dataclass
class FlowPicture:
    """Folded from what `follow` yields."""

    state: FlowState | None = None
    started_ms: int | None = None
    ended_ms: int | None = None
    failure: StepFailed | None = None
    letters: list[Buried] = field(default_factory=list)
    standings: Mapping[str, Standing] = field(default_factory=dict)
    """How the agents that owe a step are, by name, as far as somebody asked."""
    events: dict[str, Arrived] = field(default_factory=dict)
    """By event id."""
    _ends: dict[str, tuple[int, StepCompleted | StepFailed]] = field(default_factory=dict)

    def see(self, seen: Seen) -> None:
        match seen:
            case Arrived():
                self.events.setdefault(seen.envelope.event_id, seen)
            case Buried():
                self.letters.append(seen)
            case Journaled():
                self._journaled(seen)

    def _journaled(self, seen: Journaled) -> None:
        self.state = seen.state
        if isinstance(seen.record, FlowStarted) and self.started_ms is None:
            self.started_ms = seen.at_ms
        if isinstance(seen.record, (StepCompleted, StepFailed)):
            self._ends.setdefault(seen.record.step_id, (seen.at_ms, seen.record))
        if seen.state.state not in _UNDER_WAY and self.ended_ms is None:
            self.ended_ms = seen.at_ms
            self.failure = seen.record if isinstance(seen.record, StepFailed) else None

    @property
    def buried(self) -> Buried | None:
        """The dead letter of the step that failed the flow; others may have failed beside it."""
        failed = self.failure
        if failed is None:
            return None
        return next((each for each in self.letters if each.agent == failed.agent and each.event_id in failed.parents), None)

    @property
    def owed(self) -> tuple[ExpectedStep, ...]:
        return () if self.state is None else self.state.owed

    @property
    def without_subscriber(self) -> bool:
        return self.state is not None and not self.state.has_subscriber

    @property
    def decided(self) -> bool:
        """Whether the flow has come to an end, or never will because nobody subscribes to its root."""
        return self.state is not None and (self.state.state not in _UNDER_WAY or self.without_subscriber)

    @property
    def complete(self) -> bool:
        """Decided, and everything that belongs to the end has arrived: the events, and the dead letter of a failure."""
        if not self.decided or self.state is None:
            return False
        if self.failure is not None:
            return self.buried is not None
        produced = [output for _, end in self._ends.values() if isinstance(end, StepCompleted) for output in end.outputs]
        return all(event.event_id in self.events for event in (*self.state.roots, *produced))

    @property
    def seconds(self) -> float | None:
        return None if self.ended_ms is None else self._since(self.ended_ms)

    def bodies(self, event_type: str) -> list[Mapping[str, Any]]:
        """The decoded events of a type, in the order of their arrival."""
        return [event.data for event in self.events.values() if event.envelope.type == event_type and event.data is not None]

    def rows(self) -> list[Row]:
        """The steps that are expected, in the order of cause, then what may still come."""
        state = self.state
        if state is None or state.choreography is None:
            return []
        rows = [self._row(step.step_id, step.agent, step.trigger) for step in state.expected.values()]
        reached = {(row.agent, row.trigger) for row in rows}
        if state.state in _UNDER_WAY:
            possible = [(reaction.agent, reaction.subscription) for reaction in _in_order(state)]
            rows += [Row(agent, trigger, Status.AHEAD) for agent, trigger in possible if (agent, trigger) not in reached]
        return rows

    def _row(self, step_id: str, agent: str, trigger: EventRef) -> Row:
        end = self._ends.get(step_id)
        if end is None:
            standing = self.standings.get(agent)
            absent = "" if standing is None or standing.running else standing.text
            return Row(agent, trigger.type, Status.WORKING, absent=absent)
        at_ms, record = end
        if isinstance(record, StepFailed):
            return Row(agent, trigger.type, Status.FAILED, self._since(at_ms), error=record.reason)
        facts = " ".join(self._facts(output.event_id, trigger.event_id) for output in record.outputs)
        return Row(agent, trigger.type, Status.DONE, self._since(at_ms), tuple(output.type for output in record.outputs), facts)

    def _facts(self, event_id: str, trigger_id: str) -> str:
        event, trigger = self.events.get(event_id), self.events.get(trigger_id)
        if event is None:
            return ""
        if event.data is None:
            return f"(cannot be decoded here: {event.error})"
        return facts(event.data, trigger.data if trigger is not None and trigger.data is not None else {})

    def _since(self, at_ms: int) -> float:
        return max(0, at_ms - (at_ms if self.started_ms is None else self.started_ms)) / 1000


def facts(data: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """`findings=5 confidence=0.93`: what is short enough to be told and differs from the event that led here."""
    return " ".join(f"{name}={text}" for name, value in data.items() if value != before.get(name) and (text := _told(value)))


def _told(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return f"{value:g}" if isinstance(value, float) else str(value)
        case str() if 0 < len(value) <= _TEXT_SHOWN_MAX and "\n" not in value:
            return value if " " not in value else f'"{value}"'
        case bytes() | str() | Mapping():
            return ""
        case Sequence():
            return str(len(value))
    return ""


def _in_order(state: FlowState) -> list[Any]:
    """The choreography's reactions, nearest to the root first."""
    assert state.choreography is not None
    found: list[Any] = []
    frontier = [state.choreography.root]
    for event_type in frontier:
        for reaction in state.choreography.triggered_by(event_type):
            if reaction not in found:
                found.append(reaction)
                frontier += [emitted for emitted in reaction.emits if emitted not in frontier]
    return found
