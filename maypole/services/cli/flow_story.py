"""A flow told for people, folded from its journal: how each step ended, what was asked about it, what was undone and by which command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from maypole.schemas.envelope import INHERITED
from maypole.schemas.event import Event
from maypole.schemas.identifiers import StepId, command_id_of
from maypole.schemas.journal import (
    AbortRequested,
    CompensationFailed,
    DeadlineFired,
    Decision,
    Effect,
    FlowEnded,
    FlowStarted,
    OperatorDecided,
    StepAbandoned,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepFenced,
)
from maypole.services.following import Journaled
from maypole.services.saga import (
    Ask,
    EventRef,
    Facts,
    FlowState,
    Outcome,
    Phase,
    Saga,
    State,
    Unsettled,
    Why,
    choices,
    outstanding,
    unsettled,
)
from maypole.services.saga.decisions import Waiting
from maypole.services.saga.reach import Place, expected, possible
from maypole.services.saga.undoing import is_decided

End: TypeAlias = StepCompleted | StepFailed | StepAbandoned | StepFenced
Cause: TypeAlias = StepFailed | StepAbandoned | DeadlineFired | AbortRequested
UNDER_WAY: Final = (State.RUNNING, State.FORWARD_ONLY)
"""The states in which a flow goes forward."""


class Standing(StrEnum):
    """Where a step stands."""

    POSSIBLE = "possible"
    """Nobody has told of what would trigger it, and it cannot be ruled out."""
    OWED = "owed"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    ABANDONED = "abandoned"
    FENCED = "fenced"
    UNDONE = "undone"
    RESOLVED = "resolved"
    SKIPPED = "skipped"


def waits_for_a_person(saga: Saga) -> bool:
    """Of one that was reopened: whether nothing undoes by itself what contradicts its end."""
    return saga.state is State.STUCK or (saga.state is State.REOPENED and any(each.waiting for each in unsettled(saga)))


@dataclass(frozen=True, slots=True)
class At:
    """When something about a step was journaled, by the broker's clock, and by which command if it answers one."""

    ms: int
    command_id: str | None = None
    detail: str = ""


@dataclass(slots=True)
class Told:
    """What the records say of one step."""

    ends: dict[type[End], tuple[int, End]] = field(default_factory=dict)
    fenced: At | None = None
    undone: At | None = None
    undo_errors: list[At] = field(default_factory=list)
    decisions: list[tuple[int, OperatorDecided]] = field(default_factory=list)
    """Those that counted."""
    degraded: str | None = None
    """Of the first `StepCompleted`."""


@dataclass(frozen=True, slots=True)
class StepStory:
    """A step as it stands now. `asked` is the command without its answer, `unsettled` what keeps its flow from an end because of it."""

    step_id: StepId
    agent: str
    subscription: str
    trigger: tuple[EventRef, ...]
    standing: Standing
    effect: Effect
    end: End | None
    ended_ms: int | None
    told: Told
    asked: At | None
    asked_kind: Ask | None
    unsettled: Unsettled | None
    choices: tuple[Decision, ...]
    is_pivot: bool
    person: str
    """What it needs a person for; empty where it needs none."""
    degraded: str | None
    """What was done instead of calling its handler; `inherited` where that was further up, None where all were called."""

    @property
    def why(self) -> str:
        """Of one that failed: the reason and the detail."""
        return f"{self.end.reason}: {self.end.detail}" if isinstance(self.end, StepFailed) else ""


class FlowStory:
    """Folded from the records of one flow. `state` is None until the first."""

    def __init__(self) -> None:
        self.state: FlowState | None = None
        self.business_key: str | None = None
        self.started_ms: int | None = None
        self.ended_ms: int | None = None
        """None again when an end is contradicted."""
        self.cause: Cause | None = None
        """Why the flow does not go on as it began."""
        self.records = 0
        """How many were seen."""
        self.answered = False
        """Whether any command was answered: somebody undoes this flow."""
        self._late: str = ""
        """Where a deadline was the cause: the flow, or the step that was late."""
        self._told: dict[str, Told] = {}

    def see(self, seen: Journaled) -> None:
        before = State.RUNNING if self.state is None else self.state.state
        earlier = Saga(seen.state.saga.flow_id) if self.state is None else self.saga
        self._keep(seen)
        self.records += 1
        self.state = seen.state
        now = seen.state.state
        if self.business_key is None:
            self.business_key = seen.envelope.business_key
        if now.is_end != before.is_end:
            self.ended_ms = seen.at_ms if now.is_end else None
        left = before in UNDER_WAY and now not in (*UNDER_WAY, State.COMMITTED)
        if left:
            self._left(seen.record, earlier)

    def _left(self, record: Event, earlier: Saga) -> None:
        """Where the fold has named a step it is that one: this record may only have told that the step belongs to the flow."""
        found = self.saga.cause
        if found is not None and found.why is Why.FAILURE and found != earlier.cause:
            ended = self._of(found.about).ends.get(_RECORDS[self.saga.of(StepId(found.about)).outcome])
            record = record if ended is None else ended[1]
        elif isinstance(record, DeadlineFired):
            # What was due may have been an answer of a step.
            scope = record.scope
            self._late = next((command.step_id for command in outstanding(earlier) if command.id == scope), scope)
        if isinstance(record, (StepFailed, StepAbandoned, DeadlineFired, AbortRequested)):
            self.cause = record

    def _keep(self, seen: Journaled) -> None:
        at_ms, record = seen.at_ms, seen.record
        about = StepId(getattr(record, "step_id", ""))
        self.answered |= isinstance(record, (StepFenced, StepCompensated, CompensationFailed, FlowEnded))
        generation = 1 if self.state is None else self.saga.of(about).generation
        match record:
            case FlowStarted():
                self.started_ms = at_ms if self.started_ms is None else self.started_ms
            case StepFenced():
                told = self._of(record.step_id)
                told.ends.setdefault(StepFenced, (at_ms, record))
                told.fenced = told.fenced or At(at_ms, record.command_id)
            case StepFailed():
                ends = self._of(record.step_id).ends
                before = ends.get(StepFailed)
                if before is None or (isinstance(before[1], StepFailed) and record.generation > before[1].generation):
                    ends[StepFailed] = at_ms, record
            case StepCompleted() | StepAbandoned():
                told = self._of(record.step_id)
                if isinstance(record, StepCompleted) and StepCompleted not in told.ends:
                    told.degraded = seen.degraded
                told.ends.setdefault(type(record), (at_ms, record))
            case StepCompensated():
                told = self._of(record.step_id)
                told.undone = told.undone or At(at_ms, record.command_id)
            case CompensationFailed():
                self._of(record.step_id).undo_errors.append(At(at_ms, record.command_id, record.detail))
            case OperatorDecided() if seen.state.saga.of(about).generation > generation:
                self._of(record.step_id).decisions.append((at_ms, record))
            case _:
                pass

    def _of(self, step_id: str) -> Told:
        return self._told.setdefault(step_id, Told())

    @property
    def saga(self) -> Saga:
        assert self.state is not None
        return self.state.saga

    def steps(self) -> list[StepStory]:
        """In the order of cause: those that are expected, in a flow that no longer runs as it began those that may be, then strangers."""
        if self.state is None:
            return []
        saga = self.saga
        certain = expected(saga)
        reach = certain if saga.phase is Phase.RUNNING else possible(saga)
        waiting = {each.step_id: each for each in unsettled(saga)}
        found = [self._step(place, waiting.get(place.step_id), possible=place.step_id not in certain) for place in reach.values()]
        strangers = (step_id for step_id in saga.steps if step_id not in reach)
        return [*found, *(self._stranger(step_id, waiting.get(step_id)) for step_id in strangers)]

    def _step(self, place: Place, waiting: Unsettled | None, *, possible: bool) -> StepStory:
        return self._told_of(
            place.step_id, place.reaction.agent, place.reaction.subscription, place.trigger, _effect(place), waiting,
            possible=possible, is_pivot=place.reaction.is_pivot,
        )  # fmt: skip

    def _stranger(self, step_id: StepId, waiting: Unsettled | None) -> StepStory:
        facts = self.saga.of(step_id)
        # Only steps that act say that they begin.
        effect = Effect.UNKNOWN if facts.started and facts.outcome is Outcome.OPEN else facts.effect
        return self._told_of(step_id, facts.agent, facts.subscription, (), effect, waiting, possible=False)

    def _told_of(
        self,
        step_id: StepId,
        agent: str,
        subscription: str,
        trigger: tuple[EventRef, ...],
        effect: Effect,
        waiting: Unsettled | None,
        *,
        possible: bool,
        is_pivot: bool = False,
    ) -> StepStory:
        facts, told, asked = self.saga.of(step_id), self._told.get(step_id) or Told(), self.saga.asked.get(step_id)
        ended = told.ends.get(_RECORDS[facts.outcome]) if facts.outcome in _RECORDS else None
        asked_at = None
        if asked is not None:
            asked_at = At(asked.since_ms, command_id_of(self.saga.flow_id, step_id, asked.kind.value, asked.generation))
        return StepStory(
            step_id, agent, subscription, trigger, _standing(facts, possible=possible), effect,
            None if ended is None else ended[1], None if ended is None else ended[0], told, asked_at,
            None if asked is None else asked.kind, waiting, self._choices(step_id, waiting), is_pivot,
            self._needs(step_id, told, waiting), told.degraded if facts.outcome is Outcome.COMPLETED else None,
        )  # fmt: skip

    def _choices(self, step_id: StepId, waiting: Unsettled | None) -> tuple[Decision, ...]:
        """An optional step that failed keeps its flow from nothing, and may be given another chance all the same."""
        asks_nobody = self.saga.of(step_id).outcome is not Outcome.FAILED if waiting is None else waiting.waiting is None
        return () if asks_nobody else choices(self.saga, step_id)

    def _needs(self, step_id: StepId, told: Told, unsettled: Unsettled | None) -> str:
        """The engine knows that a command came to nothing; the records also tell whether its agent said so."""
        if unsettled is None or unsettled.waiting is None:
            return ""
        facts = self.saga.of(step_id)
        if unsettled.waiting is not Waiting.FOR_AN_ANSWER or facts.stuck is None:
            return unsettled.waiting.value
        command = command_id_of(self.saga.flow_id, step_id, facts.stuck.value, facts.generation)
        if any(error.command_id == command for error in told.undo_errors):
            return f"its agent was told to {facts.stuck.value} it, and could not carry it out"
        return f"its agent did not answer the command to {facts.stuck.value} it"

    @property
    def because(self) -> str:
        """Why the flow does not go on as it began; empty where it does."""
        match self.cause:
            case StepFailed() as failed:
                return f"{failed.agent} failed for good on {failed.subscription}: {failed.reason}"
            case StepAbandoned(step_id=step_id):
                facts = self.saga.of(StepId(step_id))
                return f"{facts.agent or step_id} was stopped under way on {facts.subscription}, and nobody knows what it did"
            case DeadlineFired() if self._late == self.saga.flow_id:
                return "its deadline passed"
            case DeadlineFired():
                late = next((step for step in self.steps() if step.step_id == self._late), None)
                who = f"the step {self._late}" if late is None else f"{late.agent} on {late.subscription}"
                return f"{who} did not end in time"
            case AbortRequested(by=by, why=why):
                passed = (
                    ", too late: it had passed a point of no return" if self.saga.phase in (Phase.FORWARD_ONLY, Phase.COMMITTED) else ""
                )
                return f"cancelled by {by}: {why}{passed}"
        return ""

    @property
    def undecided_pivots(self) -> list[StepStory]:
        """Points of no return that an aborting flow may have passed: their agents have not said."""
        return [step for step in self.steps() if step.asked_kind is Ask.FENCE and step.is_pivot]

    @property
    def degraded(self) -> list[StepStory]:
        """The steps that a circuit breaker's fallback served. What came of them says `inherited`, and is not among them."""
        return [step for step in self.steps() if step.degraded not in (None, INHERITED.decode())]

    @property
    def undone(self) -> list[StepStory]:
        """The steps that were taken back, in the order in which they were."""
        return sorted((step for step in self.steps() if step.told.undone is not None), key=lambda step: step.told.undone.ms)  # type: ignore[union-attr]

    @property
    def waiting(self) -> list[StepStory]:
        """The steps that wait for a person's decision."""
        return [step for step in self.steps() if step.unsettled is not None and step.unsettled.waiting is not None and step.choices]

    def decisions(self) -> Iterator[tuple[int, OperatorDecided]]:
        """All that people decided, in the journal's order."""
        yield from sorted((each for told in self._told.values() for each in told.decisions), key=lambda each: each[0])


_RECORDS: Final[dict[Outcome, type[End]]] = {
    Outcome.FENCED: StepFenced, Outcome.FAILED: StepFailed, Outcome.ABANDONED: StepAbandoned, Outcome.COMPLETED: StepCompleted,
}  # fmt: skip


def _effect(place: Place) -> Effect:
    """Of a step that has begun to act and has not said how it ended nobody knows."""
    unknown = place.reaction.acts_outside and place.facts.outcome is Outcome.OPEN and place.facts.started
    return Effect.UNKNOWN if unknown else place.effect


def _standing(facts: Facts, *, possible: bool) -> Standing:
    if is_decided(facts):
        return Standing.SKIPPED if facts.decision is Decision.SKIP else Standing.RESOLVED
    if facts.undone:
        return Standing.UNDONE
    match facts.outcome:
        case Outcome.OPEN:
            return Standing.STARTED if facts.started else Standing.POSSIBLE if possible else Standing.OWED
        case _:
            return Standing(facts.outcome.name.lower())
