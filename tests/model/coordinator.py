"""The coordinator's half: the real reducer, its states and records known by numbers, every answer remembered.

It folds a record as soon as it is journaled. One that lags sends the same commands later, and commands stay deliverable for
ever, so every lag is among what is explored; what it fires from a stale state is a `DeadlineFired`, which may come at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from maypole.schemas.event import Event
from maypole.schemas.identifiers import CommandId, StepId
from maypole.schemas.journal import FlowStarted, Produced
from maypole.services.saga import Alarm, Ask, Command, Phase, Saga, State, engine, outstanding
from maypole.services.saga.deadlines import deadlines
from maypole.services.saga.facts import Outcome
from maypole.services.saga.forward import Forward
from maypole.services.saga.packing import pack, unpack
from maypole.services.saga.reach import expected
from maypole.services.saga.undoing import Undoing
from tests.model.scenario import FLOW, Scenario

RecordKey = tuple[object, ...]


@dataclass(frozen=True)
class Folded:
    """What one record did: the next saga, the commands that came of it, and what it violated."""

    saga: int
    commands: int
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """What is asked of a saga in every state, once."""

    saga: Saga
    state: State
    phase: Phase
    outstanding: int
    unsettled: frozenset[StepId]
    forward: Forward
    """Of a flow that is not being undone: what it waits for, and what it has left behind."""
    outcomes: Mapping[StepId, Outcome]
    timed: bool
    """Whether a timer is running for it."""


class Coordinator:
    def __init__(self, scenario: Scenario, records: Callable[[RecordKey], Event]) -> None:
        self.scenario = scenario
        self._make = records
        self._known = {scenario.choreography.hash: scenario.choreography}
        self._sagas: list[Saga] = []
        self._saga_ids: dict[bytes, int] = {}
        self._views: dict[int, View] = {}
        self._folded: dict[tuple[int, RecordKey], Folded] = {}
        self.commands: list[Command] = []
        self._command_bits: dict[CommandId, int] = {}
        root = Produced(event_id=scenario.root.event_id, type=scenario.root.type, digest=bytes(32))
        started = FlowStarted(choreography=scenario.choreography.hash, deadline_ms=1, roots=(root,))
        saga, _ = engine.step(Saga(FLOW), started, 0, self._known)
        self.first = self._number(saga)

    def fold(self, saga: int, key: RecordKey) -> Folded:
        found = self._folded.get((saga, key))
        if found is None:
            found = self._folded[saga, key] = self._fold(saga, key)
        return found

    def changes(self, saga: int, key: RecordKey) -> bool:
        """Whether the record would say anything new. One that does not may be written as often as it likes."""
        found = self.fold(saga, key)
        return found.saga != saga or bool(found.commands or found.wrong)

    def view(self, saga: int) -> View:
        found = self._views.get(saga)
        if found is None:
            found = self._views[saga] = self._view(self._sagas[saga])
        return found

    def saga(self, number: int) -> Saga:
        return self._sagas[number]

    @property
    def saga_count(self) -> int:
        return len(self._sagas)

    def bit_of(self, command: Command) -> int:
        bit = self._command_bits.get(command.id)
        if bit is None:
            bit = self._command_bits[command.id] = 1 << len(self.commands)
            self.commands.append(command)
        return bit

    def _fold(self, number: int, key: RecordKey) -> Folded:
        before, record = self._sagas[number], self._make(key)
        after, told = engine.step(before, record, 0, self._known)
        # A word of a person on what nobody knew may turn out to be wrong; that is what the alarm is for.
        alarms = [each for each in told if isinstance(each, Alarm) and after.of(each.step_id).decision is None]
        wrong = [f"T alarm: {each.violation} of {key}" for each in alarms]
        commands = 0
        for each in told:
            if isinstance(each, Command):
                commands |= self.bit_of(each)
        again, repeated = engine.step(after, record, 0, self._known)
        if again != after or any(isinstance(each, Command) for each in repeated):
            wrong.append(f"I8 {key} changes the state when it is told twice")
        same, same_told = engine.step(before, record, 0, self._known)
        if same != after or [each.id for each in same_told if isinstance(each, Command)] != [
            each.id for each in told if isinstance(each, Command)
        ]:
            wrong.append(f"I10 {key} leads to other commands when it is folded again")
        if unpack(pack(after), self._known) != after:
            wrong.append("I9 a state is not what was stored of it")
        wrong += _illegal(before, after)
        return Folded(self._number(after), commands, tuple(wrong))

    def _number(self, saga: Saga) -> int:
        key = pack(replace(saga, cause=None))  # it is for people, and nothing is decided by it
        number = self._saga_ids.get(key)
        if number is None:
            number = self._saga_ids[key] = len(self._sagas)
            self._sagas.append(saga)
        return number

    def _view(self, saga: Saga) -> View:
        bits = 0
        for command in outstanding(saga):
            bits |= self.bit_of(command)
        aborting = saga.phase in (Phase.ABORTING, Phase.REOPENED, Phase.COMPENSATED)
        unsettled = frozenset(Undoing(saga).unsettled) if aborting else frozenset()
        outcomes = {step_id: facts.outcome for step_id, facts in saga.steps.items()}
        timed = any(True for _ in deadlines(saga, 1))
        return View(saga, saga.state, saga.phase, bits, unsettled, Forward(saga), outcomes, timed)


_MOVES: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.RUNNING: frozenset(Phase) - {Phase.REOPENED},
    Phase.ABORTING: frozenset({Phase.ABORTING, Phase.FORWARD_ONLY, Phase.COMMITTED, Phase.COMPENSATED}),
    Phase.FORWARD_ONLY: frozenset({Phase.FORWARD_ONLY, Phase.COMMITTED}),
    Phase.COMMITTED: frozenset({Phase.COMMITTED}),
    Phase.COMPENSATED: frozenset({Phase.COMPENSATED, Phase.REOPENED}),
    Phase.REOPENED: frozenset({Phase.REOPENED, Phase.COMPENSATED}),
}


def _illegal(before: Saga, after: Saga) -> list[str]:
    """Ends are exclusive, and only a pivot leads from an abort to a commit."""
    if after.phase not in _MOVES[before.phase]:
        return [f"I5 {before.phase.name} became {after.phase.name}"]
    if before.phase is Phase.ABORTING and after.phase in (Phase.FORWARD_ONLY, Phase.COMMITTED):
        places = expected(after).values()
        if not any(place.reaction.is_pivot and after.of(place.step_id).outcome is Outcome.COMPLETED for place in places):
            return ["I5 an abort was revoked without a pivot"]
    if after.phase in (Phase.COMMITTED, Phase.FORWARD_ONLY) and any(asked.kind is Ask.COMPENSATE for asked in after.asked.values()):
        return ["I5 something is undone in a flow that goes forward"]
    return []
