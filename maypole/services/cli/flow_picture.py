"""What a person is shown of a flow: one row a step, filled in as its records and events arrive. No drawing, no waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from maypole.bus.dead_letters import Reason
from maypole.schemas.journal import Produced, StepCompleted, StepFailed
from maypole.services.cli.agent_status import Standing as Presence
from maypole.services.cli.flow_story import UNDER_WAY, FlowStory, Standing, StepStory, waits_for_a_person
from maypole.services.following import Arrived, Buried, Journaled, Seen
from maypole.services.saga import Ask, ExpectedStep, FlowState, State

_TEXT_SHOWN_MAX: Final = 80


class Status(Enum):
    AHEAD = "ahead"
    """The choreography may lead here; nothing has triggered it yet."""
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"
    FENCED = "fenced"
    """It has not run, and never will."""


class Turn(Enum):
    """What becomes of a step once its flow does not go on as it began."""

    FENCING = "is asked whether it ran"
    UNDOING = "is being undone"
    UNDONE = "undone"
    STUCK = "stuck"
    DECIDED = "decided"


@dataclass(frozen=True, slots=True)
class After:
    """`seconds` since the flow started; `text` is for people: by which command, or why not."""

    turn: Turn
    seconds: float | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A step. `emitted` are event types, each once, with the count where there are several; `facts` what is new in its events;
    `seconds` since the flow started."""

    key: str
    """The same for as long as it is drawn."""
    agent: str
    trigger: str
    status: Status
    seconds: float | None = None
    emitted: tuple[str, ...] = ()
    facts: str = ""
    error: str = ""
    absent: str = ""
    """Of one that is worked on: why nothing may come of it."""
    after: After | None = None
    told: bool = True
    """Whether all the events have arrived that `facts` is taken from."""


@dataclass
class FlowPicture:
    """Folded from what `follow` yields."""

    story: FlowStory = field(default_factory=FlowStory)
    letters: list[Buried] = field(default_factory=list)
    presences: Mapping[str, Presence] = field(default_factory=dict)
    """How the agents that owe something are, by name, as far as somebody asked."""
    bystanders: Sequence[str] = ()
    """Of a flow that no agent takes part in: who comes near, in words."""
    coordinated: bool = False
    """Whether a coordinator was heard of lately."""
    events: dict[str, Arrived] = field(default_factory=dict)
    """By event id."""

    def see(self, seen: Seen) -> None:
        match seen:
            case Arrived():
                self.events.setdefault(seen.envelope.event_id, seen)
            case Buried():
                self.letters.append(seen)
            case Journaled():
                self.story.see(seen)

    @property
    def state(self) -> FlowState | None:
        return self.story.state

    @property
    def failure(self) -> StepFailed | None:
        """The step whose failure decided the flow."""
        return self.story.cause if isinstance(self.story.cause, StepFailed) else None

    @property
    def buried(self) -> Buried | None:
        """The dead letter of the step that failed the flow; others may have failed beside it."""
        return None if self.failure is None else self.letter_of(self.failure)

    def letter_of(self, failed: StepFailed) -> Buried | None:
        return next((each for each in self.letters if each.agent == failed.agent and each.event_id in failed.parents), None)

    @property
    def owed(self) -> tuple[ExpectedStep, ...]:
        return () if self.state is None else self.state.owed

    @property
    def owing(self) -> Sequence[str]:
        """The agents that owe a step or the answer to a command."""
        asked = () if self.state is None else (each.agent for each in self.state.saga.asked.values())
        return tuple(dict.fromkeys((*(step.agent for step in self.owed), *asked)))

    @property
    def without_subscriber(self) -> bool:
        return self.state is not None and not self.state.has_subscriber

    @property
    def decided(self) -> bool:
        """Whether the flow has come to an end, waits for a person, or never ends because nobody subscribes to its root."""
        state = self.state
        return state is not None and (state.state.is_end or waits_for_a_person(state.saga) or self.without_subscriber)

    @property
    def left_alone(self) -> bool:
        """Whether something has to be undone, nobody has begun, and nobody is there who would."""
        aborting = self.state is not None and self.state.state is State.ABORTING
        return aborting and not self.story.answered and not self.coordinated

    @property
    def complete(self) -> bool:
        """Decided, and everything that belongs to the end has arrived: the events, and the dead letter of a failure."""
        if not self.decided or self.state is None:
            return False
        if self.failure is not None:
            return self.buried is not None or self.failure.reason == Reason.EXPIRED
        if self.state.state is not State.COMMITTED:
            return True
        produced = [output for end in self.state.completed.values() for output in end.outputs]
        return all(event.event_id in self.events for event in (*self.state.roots, *produced))

    @property
    def seconds(self) -> float | None:
        """How long the flow took to its end."""
        return self._since(self.story.ended_ms)

    def bodies(self, event_type: str) -> list[Mapping[str, Any]]:
        """The decoded events of a type, in the order of their arrival."""
        return [event.data for event in self.events.values() if event.envelope.type == event_type and event.data is not None]

    def rows(self) -> list[Row]:
        """The steps that are expected, in the order of cause, then what may still come."""
        state = self.state
        if state is None or state.choreography is None:
            return []
        rows = [self._row(step) for step in self.story.steps()]
        reached = {(row.agent, row.trigger) for row in rows}
        if state.state in UNDER_WAY:
            possible = [(reaction.agent, reaction.subscription) for reaction in _in_order(state)]
            rows += [Row(f"{agent}/{on}", agent, on, Status.AHEAD) for agent, on in possible if (agent, on) not in reached]
        return rows

    def _row(self, step: StepStory) -> Row:
        end, after = step.end, self._after(step)
        if isinstance(end, StepCompleted):
            triggers = [event.event_id for event in step.trigger[-1:]]
            outputs = [output.event_id for output in _firsts(end.outputs)]
            facts = " ".join(self._facts(output, trigger) for trigger in triggers for output in outputs)
            told = not outputs or all(event in self.events for event in (*triggers, *outputs))
            counts = Counter(output.type for output in end.outputs)
            emitted = tuple(f"{event_type} x{count}" if count > 1 else event_type for event_type, count in counts.items())
            return Row(
                step.step_id, step.agent, step.subscription, Status.DONE, self._since(step.ended_ms), emitted, facts, after=after, told=told
            )
        if step.standing is Standing.FENCED:
            return Row(step.step_id, step.agent, step.subscription, Status.FENCED, self._since(step.ended_ms), after=after)
        if end is not None:
            error = end.reason if isinstance(end, StepFailed) else "was stopped under way"
            return Row(step.step_id, step.agent, step.subscription, Status.FAILED, self._since(step.ended_ms), error=error, after=after)
        presence = self.presences.get(step.agent)
        absent = "" if presence is None or presence.running else presence.text
        return Row(step.step_id, step.agent, step.subscription, Status.WORKING, absent=absent, after=after)

    def _after(self, step: StepStory) -> After | None:
        if step.standing in (Standing.RESOLVED, Standing.SKIPPED):
            at_ms, record = step.told.decisions[-1]
            return After(Turn.DECIDED, self._since(at_ms), f"{step.standing} by {record.by}: {record.note}")
        if step.told.undone is not None and step.standing is Standing.UNDONE:
            return After(Turn.UNDONE, self._since(step.told.undone.ms), f"command {short(step.told.undone.command_id or '')}")
        stands_still = self.state is not None and self.state.state in (State.STUCK, State.REOPENED)
        if stands_still and step.person:
            return After(Turn.STUCK, text=step.person)
        if step.asked_kind is Ask.FENCE:
            return After(Turn.FENCING)
        return After(Turn.UNDOING) if step.asked_kind is Ask.COMPENSATE else None

    def _facts(self, event_id: str, trigger_id: str) -> str:
        event, trigger = self.events.get(event_id), self.events.get(trigger_id)
        if event is None:
            return ""
        if event.data is None:
            return f"(cannot be decoded here: {event.error})"
        return facts(event.data, trigger.data if trigger is not None and trigger.data is not None else {})

    def _since(self, at_ms: int | None) -> float | None:
        if at_ms is None:
            return None
        started_ms = at_ms if self.story.started_ms is None else self.story.started_ms
        return max(0, at_ms - started_ms) / 1000


def _firsts(outputs: Sequence[Produced]) -> Iterable[Produced]:
    """The first of each type: a line has no room for what hundreds of them say."""
    return {output.type: output for output in reversed(outputs)}.values()


def short(identifier: str) -> str:
    """Enough of an id to recognise it by."""
    return identifier[:8]


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
