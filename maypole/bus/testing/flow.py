"""One flow, as a test looks at it: read from the broker and the journal each time it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from maypole.bus.bus import Published
from maypole.bus.dead_letters import Reason
from maypole.bus.memory.waiting import Wakeup
from maypole.bus.ports import Delivery
from maypole.bus.testing.errors import NoSubscriber, NotFinished
from maypole.bus.testing.records import DeadLetter, FlowEvent, Topics
from maypole.schemas.envelope import INHERITED, degraded_of
from maypole.schemas.event import Event
from maypole.schemas.identifiers import FlowId, digest_of
from maypole.schemas.journal import Produced, StepCompensated, StepCompleted, StepFailed
from maypole.schemas.topics import JOURNAL
from maypole.services.saga.facts import State
from maypole.services.saga.fold import ExpectedStep, FlowState, fold

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class FlowStep:
    """One agent handling one event, or the last part of a join. `state` is `owed`, `completed` or `failed`.

    `trigger` is the id of the event that it handles; `outputs` are the ids of those that it emitted. `reason` and `error`
    say why it failed, `attempts` how often it was tried; they are None for a step that did not fail. `degraded` says what was
    done instead of calling its handler (`skip`, `cached`, `default`, `alert`; `inherited` where that was further up).
    """

    step_id: str
    agent: str
    subscription: str
    trigger: str
    state: str
    outputs: tuple[str, ...] = ()
    reason: str | None = None
    error: str | None = None
    attempts: int | None = None
    degraded: str | None = None


class Actors(Protocol):
    """Who acts in a flow, as far as it has to know."""

    def subscriptions(self) -> Mapping[str, Sequence[str]]:
        """The types that each agent subscribes to."""
        ...

    def condition(self, name: str) -> str:
        """Whether an agent runs, in words."""
        ...

    def raise_crash(self) -> None:
        """Raises `AgentCrashed` once for each agent that ended by itself."""
        ...

    def telling(self, call: Callable[[], None]) -> AbstractContextManager[None]:
        """Have it called when there may be more to read."""
        ...


class Flow:
    """Made by `Choreography.publish`. Every property tells of this moment; `finished` waits."""

    def __init__(self, published: Published, topics: Topics, cast: Actors, *, coordinated: bool = False) -> None:
        self.published = published
        """Where the root lies, its ids, and the agents that it reaches first."""
        self._topics = topics
        self._cast = cast
        self._coordinated = coordinated
        self._journal: list[Event] = []
        self._degraded: dict[str, str | None] = {}
        self._folded = FlowState(published.flow_id)
        self._at = topics.partition(JOURNAL, published.flow_id)
        self._next = 0

    @property
    def flow_id(self) -> FlowId:
        return self.published.flow_id

    @property
    def state(self) -> str:
        """`running`; `committed`; once a step has failed for good `aborting`, or `compensated` where nothing is left to undo."""
        return self._state().state.value

    @property
    def journal(self) -> tuple[Event, ...]:
        """The flow's journal records in their order: `FlowStarted`, `StepCompleted`, `StepFailed`."""
        self._state()
        return tuple(self._journal)

    @property
    def events(self) -> tuple[FlowEvent, ...]:
        """Its events in order of production, each once however often it was written; what observers made of them comes last."""
        found = [self._topics.event(record, parents) for parents, produced in self._produced() if (record := self._record_of(produced))]
        return (*found, *self._observed({event.event_id for event in found}))

    @property
    def types(self) -> tuple[str, ...]:
        """The types of its events in order of production."""
        return tuple(event.type for event in self.events)

    def of(self, event_class: type[E]) -> tuple[E, ...]:
        """Its events of one class: `(report,) = flow.of(ReportPublished)`."""
        return tuple(event.event for event in self.events if isinstance(event.event, event_class))

    @property
    def steps(self) -> tuple[FlowStep, ...]:
        """Its steps, those that came to their end first, then those that are owed."""
        state = self._state()
        steps: dict[str, FlowStep] = {}
        for record in self._journal:
            if isinstance(record, StepCompleted) or (isinstance(record, StepFailed) and record.step_id not in steps):
                steps[record.step_id] = _ended(record, self._degraded)  # one that failed may have been given another chance
        owed = {step.step_id: FlowStep(step.step_id, step.agent, step.subscription, step.trigger.event_id, "owed") for step in state.owed}
        return (*(step for step_id, step in steps.items() if step_id not in owed), *owed.values())

    @property
    def degraded(self) -> tuple[str, ...]:
        """The agents that a circuit breaker's fallback served, each once; empty where every handler was called."""
        served = (step.agent for step in self.steps if step.degraded not in (None, INHERITED.decode()))
        return tuple(dict.fromkeys(served))

    @property
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """Those of its events that agents gave up."""
        return tuple(self._topics.buried(self.flow_id))

    async def finished(self, timeout_seconds: float = 60.0) -> str:
        """Wait until nobody owes the flow anything and all that its steps wrote lies on its topics; returns the state.

        `timeout_seconds` are virtual: they pass at once. Raises `NoSubscriber`, `NotFinished` naming who owes what,
        and `AgentCrashed`.
        """
        until = asyncio.get_running_loop().time() + timeout_seconds
        more = Wakeup()
        with self._cast.telling(more.set):
            while True:
                more.clear()
                self._cast.raise_crash()
                state = self._state()
                if not state.has_subscriber:
                    raise NoSubscriber(self._unheard())
                if self._rests(state):
                    return state.state.value
                if not await more.wait_until(until):
                    raise NotFinished(self._unfinished(timeout_seconds))

    @property
    def at_rest(self) -> bool:
        """Whether nobody owes it anything, and all that its steps wrote lies on its topics."""
        return self._rests(self._state())

    def explained(self) -> list[str]:
        """Why it is not at rest: who owes what, and what never came."""
        return self._unfinished_lines()

    def __repr__(self) -> str:
        return f"Flow({self.flow_id}, {self.state})"

    # Reading.

    def _state(self) -> FlowState:
        for record in self._topics.since(self._at, self._next):
            self._next = record.offset + 1
            body = self._topics.journaled(record) if record.key == self.flow_id.encode() else None
            if body is not None:
                self._journal.append(body)
                if isinstance(body, StepCompleted):
                    self._degraded.setdefault(body.step_id, degraded_of(record.headers))
                self._folded = fold(self._folded, body, self._topics.catalog().choreographies, record.timestamp_ms)
        return self._folded

    def _produced(self) -> Iterator[tuple[tuple[str, ...], Produced]]:
        """What the journal promises, with the parents of each."""
        seen = set()
        promised: list[tuple[tuple[str, ...], Produced]] = [((), root) for root in self._state().roots]
        for record in self._journal:
            if isinstance(record, StepCompleted):
                promised += [(record.parents, output) for output in record.outputs]
        for parents, produced in promised:
            if produced.event_id not in seen:
                seen.add(produced.event_id)
                yield parents, produced

    def _record_of(self, produced: Produced) -> Delivery | None:
        for record in self._topics.of_flow(produced.type, self.flow_id):
            if _id(record) == produced.event_id and digest_of(record.value or b"") == produced.digest:
                return record
        return None

    def _observed(self, known: set[str]) -> list[FlowEvent]:
        found: dict[str, FlowEvent] = {}
        for topic in self._topics.events():
            for record in self._topics.of_flow(topic, self.flow_id):
                headers = dict(record.headers)
                if "ce_observer" in headers and _id(record) not in known:
                    found.setdefault(_id(record), self._topics.event(record, [(headers.get("ce_causationid") or b"").decode()]))
        return sorted(found.values(), key=lambda event: (event.version, event.type, event.producer, event.event_id))

    def _rests(self, state: FlowState) -> bool:
        """A step is journaled before its events leave, so a flow that is decided may still have some on their way."""
        if self._coordinated and state.state is State.STUCK:
            return True
        if not state.expected or state.owed or (self._coordinated and not state.state.is_end):
            return False
        if self._missing():
            return False
        buried = {(letter.agent, letter.event_id) for letter in self.dead_letters}
        letters = [failed for failed in state.failed.values() if failed.reason != Reason.EXPIRED]
        return all((failed.agent, failed.parents[0]) in buried for failed in letters)

    def _missing(self) -> list[Produced]:
        """What is still to come. What a step had not let go when it was undone never does."""
        undone = {record.step_id for record in self._journal if isinstance(record, StepCompensated)}
        ended = [record for record in self._journal if isinstance(record, StepCompleted) and record.step_id in undone]
        held_back = {output.event_id for record in ended for output in record.outputs}
        return [each for _, each in self._produced() if each.event_id not in held_back and self._record_of(each) is None]

    # Explaining.

    def _unheard(self) -> str:
        subscribed = self._cast.subscriptions()
        running = "; ".join(f"{agent} subscribes to {', '.join(types)}" for agent, types in subscribed.items()) or "none"
        return (
            f"flow {self.flow_id} will never finish: no agent subscribed to {self.published.topic} when it was published. "
            f"Agents of this choreography: {running}. Start one with @agent.on({self.published.topic!r}), or await nothing."
        )

    def _unfinished(self, timeout_seconds: float) -> str:
        state = self._state()
        first = f"flow {self.flow_id} did not finish within {timeout_seconds:g} virtual seconds; it is {state.state.value}"
        return "\n".join([first, *self._unfinished_lines()])

    def _unfinished_lines(self) -> list[str]:
        state = self._state()
        lines = [f"  {step.agent} owes {_owes(step)}: {self._cast.condition(step.agent)}" for step in state.owed]
        if not state.owed:
            lines += [f"  {produced.type} (event {produced.event_id}) was journaled and never came" for produced in self._missing()]
        lines += [f"  dead letter of {letter.agent}: {letter.reason}: {letter.error}" for letter in self.dead_letters]
        lines.append(f"  so far: {', '.join(self.types) or 'no events'}")
        return lines


def _owes(step: ExpectedStep) -> str:
    return f"its step for {step.trigger.type} (event {step.trigger.event_id}, step {step.step_id})"


def _ended(record: StepCompleted | StepFailed, degraded: Mapping[str, str | None]) -> FlowStep:
    trigger = record.parents[0] if record.parents else ""
    if isinstance(record, StepCompleted):
        outputs = tuple(output.event_id for output in record.outputs)
        how = degraded[record.step_id]
        return FlowStep(record.step_id, record.agent, record.subscription, trigger, "completed", outputs, degraded=how)
    return FlowStep(record.step_id, record.agent, record.subscription, trigger, "failed", (), record.reason, record.detail, record.attempts)


def _id(record: Delivery) -> str:
    headers: Mapping[str, bytes | None] = dict(record.headers)
    return (headers.get("ce_id") or b"").decode(errors="replace")
