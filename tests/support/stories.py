"""Journals of flows, told by agents' names: what a test says happened, as the records that would say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from maypole.bus.choreography import Choreography, derive_choreography
from maypole.schemas.event import Event
from maypole.schemas.identifiers import (
    EventId,
    FlowId,
    StepId,
    awaited_trigger,
    command_id_of,
    joined_trigger,
    output_event_id,
    root_event_id,
    step_id_of,
)
from maypole.schemas.journal import (
    CompensationFailed,
    DeadlineFired,
    Decision,
    Effect,
    FlowStarted,
    OperatorDecided,
    Produced,
    StepAbandoned,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepFenced,
    StepStarted,
)
from maypole.services.saga import Alarm, Ask, Command, Saga, step

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def agent(name: str, on: str, *emits: str, kind: str = "undo", **more: object) -> Mapping[str, Any]:
    """`on` names one event type, or the parts of a join with `+` between them."""
    parts = on.split("+")
    return {"name": name, "subscriptions": [{"on": parts if len(parts) > 1 else on, "emits": list(emits), "kind": kind, **more}]}


class Story:
    """One flow of these agents; every agent has one subscription, and its steps are known by its name."""

    def __init__(self, root: str, *agents: Mapping[str, Any], flow: str = "flow") -> None:
        self.flow = FlowId(flow)
        self.choreography: Choreography = derive_choreography(root, agents)
        self.known = {self.choreography.hash: self.choreography}
        self.reactions = {reaction.agent: reaction for reaction in self.choreography.reactions}
        self.root = Produced(event_id=root_event_id(self.flow, root), type=root, digest=bytes(32))
        self._events: dict[str, list[Produced]] = {root: [self.root]}
        self.ids: dict[str, StepId] = {}
        self._place()

    def _place(self) -> None:
        """Every step that can run if everybody emits one event of each type, each once."""
        grown = True
        while grown:
            grown = False
            for reaction in self.choreography.reactions:
                if reaction.agent in self.ids or not all(of_type in self._events for of_type in reaction.on):
                    continue
                grown = True
                parents = [EventId(self._events[of_type][0].event_id) for of_type in reaction.on]
                trigger = parents[0] if len(parents) == 1 else joined_trigger(parents)
                if reaction.within_ms is not None:
                    trigger = awaited_trigger(0)
                self.ids[reaction.agent] = made = step_id_of(self.flow, reaction.agent, reaction.subscription, trigger)
                for index, of_type in enumerate(reaction.emits):
                    event = Produced(event_id=output_event_id(made, of_type, index), type=of_type, digest=bytes(32))
                    self._events.setdefault(of_type, []).append(event)

    def started(self, deadline_ms: int = 1000) -> FlowStarted:
        return FlowStarted(choreography=self.choreography.hash, deadline_ms=deadline_ms, roots=(self.root,))

    def begun(self, name: str) -> StepStarted:
        who = self.reactions[name]
        return StepStarted(
            step_id=self.ids[name], agent=name, subscription=who.subscription, parents=(), attempt=1, lease_until=NOON, undo_key=None
        )

    def completed(self, name: str, *emits: str, effect: Effect | None = None) -> StepCompleted:
        """`emits` is everything that it declares, unless something is given; "-" is nothing."""
        who = self.reactions[name]
        types = [] if emits == ("-",) else emits or who.emits
        outputs = tuple(
            Produced(event_id=output_event_id(self.ids[name], of_type, index), type=of_type, digest=bytes(32))
            for index, of_type in enumerate(types)
        )
        effect = effect or (Effect.APPLIED if who.acts_outside else Effect.NONE)
        return StepCompleted(step_id=self.ids[name], agent=name, subscription=who.subscription, parents=(), effect=effect, outputs=outputs)

    def failed(self, name: str, effect: Effect = Effect.NONE, generation: int = 1) -> StepFailed:
        return StepFailed(
            step_id=self.ids[name], agent=name, subscription=self.reactions[name].subscription, parents=(), reason="rejected",
            detail="no", attempts=1, effect=effect, generation=generation,
        )  # fmt: skip

    def fenced(self, name: str, attempts: int | None = None) -> StepFenced:
        return StepFenced(step_id=self.ids[name], attempts=attempts)

    def abandoned(self, name: str) -> StepAbandoned:
        return StepAbandoned(step_id=self.ids[name])

    def undone(self, name: str, generation: int = 1) -> StepCompensated:
        return StepCompensated(step_id=self.ids[name], command_id=self.command(name, Ask.COMPENSATE, generation))

    def undo_failed(self, name: str, *, retryable: bool, generation: int = 1) -> CompensationFailed:
        command_id = self.command(name, Ask.COMPENSATE, generation)
        return CompensationFailed(step_id=self.ids[name], command_id=command_id, retryable=retryable, detail="no")

    def late(self, scope: str) -> DeadlineFired:
        return DeadlineFired(scope=scope, due=datetime.fromtimestamp(0, UTC))

    def decided(self, name: str, decision: Decision, generation: int = 1) -> OperatorDecided:
        return OperatorDecided(step_id=self.ids[name], decision=decision, note="seen to", by="somebody", generation=generation)

    def command(self, name: str, kind: Ask, generation: int = 1) -> str:
        return command_id_of(self.flow, self.ids[name], kind.value, generation)

    def told(self, records: Sequence[Event]) -> Telling:
        telling = Telling(self)
        for record in records:
            telling.tell(record)
        return telling


class Telling:
    """A journal as it is folded. Steps are known by their agents' names again."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.saga = Saga(story.flow)
        self.at_ms = 0
        self.commands: list[Command] = []
        self.alarms: list[Alarm] = []

    def tell(self, *records: Event) -> list[str]:
        """The commands that these records lead to, as `fence one`."""
        before = len(self.commands)
        for record in records:
            self.at_ms += 1
            self.saga, told = step(self.saga, record, self.at_ms, self.story.known)
            self.commands += [each for each in told if isinstance(each, Command)]
            self.alarms += [each for each in told if isinstance(each, Alarm)]
        return sorted(f"{command.kind} {command.agent}" for command in self.commands[before:])

    @property
    def state(self) -> str:
        return self.saga.state.value
