"""Ways to get the protocol wrong, each a small change of the reducer, of the table or of what agents do, and the invariant that it breaks.

Nothing of the project is copied: a mutant overrides one method, or one function in one place, for as long as it is explored.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

from maypole.bus.ledger.step import State, Step
from maypole.bus.ledger.transitions import Begin, Compensate, Death, Fail, Fence, Input, Transition, Verdict
from maypole.schemas.event import Event
from maypole.schemas.identifiers import StepId, awaited_trigger, output_event_id
from maypole.schemas.journal import Decision, Effect
from maypole.services.saga import Ask, Phase, Saga, engine, facts, forward, news, packing, reach, table, undoing
from maypole.services.saga.facts import Outcome
from maypole.services.saga.forward import Forward
from maypole.services.saga.reach import Place, Reach
from maypole.services.saga.table import News, Rule
from maypole.services.saga.undoing import Undoing
from tests.model import scenarios
from tests.model.agents import COMMITTED, NOW, Agents, Lane, Move
from tests.model.coordinator import RecordKey
from tests.model.explore import Explorer, World
from tests.model.scenario import Instance, Scenario


@dataclass(frozen=True)
class Mutant:
    name: str
    breaks: str
    scenario: Scenario
    agents: type[Agents] = Agents
    reducer: Callable[[], AbstractContextManager[object]] = nullcontext
    explorer: type[Explorer] = Explorer


# Of the reducer.


def _instead(where: object, name: str, what: object) -> Callable[[], AbstractContextManager[object]]:
    return lambda: patch.object(where, name, what)


def _cached(what: Callable[[Undoing], object]) -> property:
    return property(what)


def _only_known_committed(self: Undoing) -> tuple[StepId, ...]:
    done = [place for place in self.reach.values() if place.facts.outcome is Outcome.COMPLETED and place.effect is not Effect.NONE]
    return tuple(place.step_id for place in done if not place.facts.undone)


def _asks_merged(original: Callable[[Undoing], Iterator[tuple[Place, Ask]]]) -> Callable[[Undoing], Iterator[tuple[Place, Ask]]]:
    return lambda self: ((place, Ask.COMPENSATE) for place, _ in original(self))


def _settled_not_recursive(self: Undoing) -> frozenset[StepId]:
    return frozenset(place.step_id for place in self.reach.values() if place.facts.undone or undoing.is_gone(place))


def _settled_in_one_pass(self: Undoing) -> frozenset[StepId]:
    found: set[StepId] = set()
    for place in reversed([*self.reach.values()]):
        if place.facts.undone or (undoing.is_gone(place) and self._nothing_follows(place, found)):
            found.add(place.step_id)
    return frozenset(found)


def _one_level(original: Callable[..., Any]) -> Callable[..., Any]:
    def outputs(flow: Any, place: Place, guessing: bool) -> Any:
        return original(flow, place, guessing) if any(event.type == "r.s" for event in place.trigger) else ()

    return outputs


def _one_round(original: Callable[..., Any]) -> Callable[..., Any]:
    def outputs(flow: Any, place: Place, guessing: bool) -> Any:
        return () if "r.s" in place.reaction.emits else original(flow, place, guessing)

    return outputs


def _without(row: str) -> Callable[..., Any]:
    original = reach._closure

    def closure(saga: Saga, *, guessing: bool) -> Reach:
        found = original(saga, guessing=guessing)
        for place in found.values():
            if row == "awaiting":
                place.awaiting.clear()
        return found

    return closure


def _adopting(saga: Saga, *, guessing: bool) -> Reach:
    """Whatever has run is taken as expected."""
    found = dict(_CLOSURE(saga, guessing=guessing))
    assert saga.choreography is not None
    for step_id, known in saga.steps.items():
        for reaction in saga.choreography.reactions:
            if step_id not in found and undoing.ran(known) and (reaction.agent, reaction.subscription) == (known.agent, known.subscription):
                found[step_id] = Place(step_id, reaction, known, ())
    return found


def _inferring(saga: Saga, *, guessing: bool) -> Reach:
    """A child that has run is taken to prove that its parent is done."""
    while True:
        found = _CLOSURE(saga, guessing=guessing)
        for place in found.values():
            if place.facts.outcome is not Outcome.COMPLETED:
                outputs = tuple(
                    facts.EventRef(output_event_id(place.step_id, of_type, index), of_type)
                    for index, of_type in enumerate(place.reaction.emits)
                )
                done = replace(place.facts, outcome=Outcome.COMPLETED, effect=Effect.APPLIED, outputs=outputs)
                assumed = replace(saga, steps={**saga.steps, place.step_id: done})
                later = _CLOSURE(assumed, guessing=False)
                if any(undoing.ran(later[step_id].facts) for step_id in later if step_id not in found):
                    saga = assumed
                    break
        else:
            return found


_CLOSURE = reach._closure


def _dropping(saga: Saga, record: Event, at_ms: int) -> Any:
    """A record of a step that nobody expects is thrown away."""
    step_id = getattr(record, "step_id", None)
    if step_id is not None and step_id not in reach.expected(saga):
        return None
    return _READ(saga, record, at_ms)


_READ = news.read


def _fenced_as_proof(self: Place) -> bool:
    return self.facts.outcome is Outcome.OPEN and self.facts.decision in (Decision.RESOLVED, Decision.SKIP)


def _fence_everything(self: Undoing) -> Iterable[Place]:
    return self._open


def _commit_early(original: Callable[[Saga], Reach]) -> Callable[[Saga], Reach]:
    def only_roots(saga: Saga) -> Reach:
        found = original(saga)
        return {step_id: place for step_id, place in found.items() if any(event in saga.roots for event in place.trigger)}

    return only_roots


def _changed(*cells: tuple[News, Phase, Rule]) -> Mapping[News, Mapping[Phase, Rule]]:
    changed = {row: dict(columns) for row, columns in table.TABLE.items()}
    for row, phase, rule in cells:
        changed[row][phase] = rule
    return changed


def _back_to_running(original: Callable[..., Any]) -> Callable[..., Any]:
    """The last word counts instead of the first decision: what is done after all is committed after all."""

    def decided(saga: Saga, undoing_: Undoing) -> Any:
        places = undoing_.reach.values()
        if saga.phase is Phase.ABORTING and places and all(place.facts.outcome is Outcome.COMPLETED for place in places):
            return replace(saga, phase=Phase.COMMITTED), ()
        return original(saga, undoing_)

    return decided


def _counting_repeats(saga: Saga, record: Event, at_ms: int) -> Any:
    report = _READ(saga, record, at_ms)
    step_id = getattr(record, "step_id", None)
    if report is None and step_id is not None:
        known = saga.of(StepId(step_id))
        if known.outcome is Outcome.COMPLETED:
            repeated = replace(known, decided=known.decided._replace(generation=known.generation + 1))
            return news.Report(News.COMPLETED, StepId(step_id), repeated, "", record)
    return report


@contextmanager
def _forgetful_store() -> Iterator[None]:
    """Which command was without answer is not stored."""
    original = packing.unpack

    def unpack(data: bytes, known: Any) -> Saga:
        saga = original(data, known)
        return replace(saga, steps={step_id: replace(each, stuck=None) for step_id, each in saga.steps.items()})

    with patch("tests.model.coordinator.unpack", unpack):
        yield


@contextmanager
def _numbered_commands() -> Iterator[None]:
    """Ids are handed out in the order of asking instead of being derived."""
    numbers = itertools.count()
    with patch.object(facts, "command_id_of", lambda *_: str(next(numbers))):
        yield


def _late_regardless(saga: Saga, scope: str, *, may_abort: bool) -> Saga:
    place = reach.expected(saga).get(StepId(scope))
    if place is not None and may_abort:
        return replace(saga, phase=Phase.ABORTING)
    return _DEADLINE(saga, scope, may_abort=may_abort)


_DEADLINE = engine._deadline_fired


def _undoing_what_never_ran(self: Undoing, place: Place) -> bool:
    if place.facts.outcome is Outcome.FENCED and not place.facts.undone:
        return True
    return _CAN_BE_UNDONE(self, place)


_CAN_BE_UNDONE = Undoing._can_be_undone


class OffTheLog(Explorer):
    """A coordinator whose timer decides by itself, from a state that it read some time ago: it knows of the first step only."""

    def _outside(self, world: World) -> Iterator[tuple[str, World, list[str]]]:
        yield from super()._outside(world)
        late = self.coordinator.fold(self._stale(world), ("flow late",))
        if late.commands & ~world.commands:
            yield "a timer decides", world._replace(commands=world.commands | late.commands), []

    def _stale(self, world: World) -> int:
        first = self.coordinator.first
        for step, lane in zip(self.scenario.steps, world.lanes, strict=True):
            row = self._lanes[lane].row
            if row is not None and row.state is State.DONE and step.index == 0:
                first = self.coordinator.fold(first, self.agents.done(step, self._lanes[lane])).saga
        return first


# Of agents.


class NoTombstone(Agents):
    def applied(self, row: Step | None, asked: Input) -> Transition:
        if isinstance(asked, Fence) and row is None:
            return Transition(None, Verdict.ANSWER_FENCED)
        return super().applied(row, asked)

    def answer(self, step: Instance, lane: Lane, generation: int) -> RecordKey | None:
        return ("fenced", step.index, 0) if lane.row is None else super().answer(step, lane, generation)


class WeakTombstone(Agents):
    def applied(self, row: Step | None, asked: Input) -> Transition:
        if isinstance(asked, Begin) and row is not None and row.state is State.FENCED:
            return super().applied(None, asked)
        return super().applied(row, asked)


class FailedMeansNoEffect(Agents):
    def failed(self, step: Instance, lane: Lane) -> RecordKey:
        return ("failed", step.index, Effect.NONE, lane.generation)


class NoLeaseWait(Agents):
    def applied(self, row: Step | None, asked: Input) -> Transition:
        if isinstance(asked, Compensate):
            return super().applied(row, Compensate(NOW + 1000, asked.skew_ms, asked.death))
        return super().applied(row, asked)


class PresumptionIsProof(Agents):
    def applied(self, row: Step | None, asked: Input) -> Transition:
        if isinstance(asked, Begin) and asked.death is Death.PRESUMED:
            asked = replace(asked, death=Death.CERTAIN)
        return super().applied(row, asked)


class OutputsWhileStarted(Agents):
    def _work(self, step: Instance, lane: Lane, attempt: tuple[int, int]) -> Iterator[Move]:
        for move in super()._work(step, lane, attempt):
            if move.name == "act":
                yield move._replace(lane=move.lane._replace(flight=move.lane.flight | self.outputs(step, 0)))
            else:
                yield move


class DoneWithoutOutputs(Agents):
    def answer_of_done(self, step: Instance, lane: Lane) -> RecordKey | None:
        return ("done", step.index, Effect.APPLIED, -1)


class DoneAsUnknown(Agents):
    def answer_of_done(self, step: Instance, lane: Lane) -> RecordKey | None:
        return ("abandoned", step.index, lane.generation)


class DoneAsFenced(Agents):
    def answer_of_done(self, step: Instance, lane: Lane) -> RecordKey | None:
        return ("fenced", step.index, 1)


class DoneLost(Agents):
    def survives(self, row: Step | None) -> Step | None:
        return None if row is not None and row.state is State.DONE else row


class DoneLostUnnoticed(DoneLost):
    """Nobody says that there was no row: `StepFenced` looks as if all its attempts had changed nothing."""

    def answer(self, step: Instance, lane: Lane, generation: int) -> RecordKey | None:
        found = super().answer(step, lane, generation)
        return ("fenced", step.index, 1) if found is not None and found[0] == "fenced" else found


class RepeatedWithoutRecord(Agents):
    def sent_when_repeated(self, step: Instance, lane: Lane) -> frozenset[tuple[object, ...]]:
        return self.outputs(step, lane.choice)


class FailureDropped(Agents):
    def after_failure(self, step: Instance, lane: Lane) -> Lane:
        return lane._replace(delivery=COMMITTED)


class CommittedAfterOutputs(Agents):
    def may_commit(self, step: Instance, lane: Lane) -> bool:
        return not any(item[0] == "output" for item in lane.flight)


class CommittedAfterJournal(Agents):
    def may_commit(self, step: Instance, lane: Lane) -> bool:
        return not any(item[0] == "record" for item in lane.flight)


class PureOutputsFirst(Agents):
    def sent_by_pure(self, step: Instance, lane: Lane) -> frozenset[tuple[object, ...]]:
        return frozenset({("record", self.done(step, lane)), *self.outputs(step, lane.choice)})


class TombstonePerAgent(Agents):
    """A fence for one of its steps stops the others."""

    def shares_tombstones(self, one: Instance, other: Instance) -> bool:
        return one.reaction.agent == other.reaction.agent


class ClaimsNoEffect(Agents):
    """A later attempt speaks for itself only."""

    def applied(self, row: Step | None, asked: Input) -> Transition:
        found = super().applied(row, asked)
        if isinstance(asked, Fail) and found.after is not None and found.after.state is State.FAILED:
            return found._replace(after=replace(found.after, effect=asked.effect))
        return found


class FencesWhatRuns(Agents):
    """A step that is under way is answered as if it had never begun."""

    def applied(self, row: Step | None, asked: Input) -> Transition:
        if isinstance(asked, Fence) and row is not None and row.state is State.STARTED:
            return Transition(replace(row, state=State.FENCED), Verdict.ANSWER_FENCED)
        return super().applied(row, asked)


class UndoesAgain(Agents):
    """A repeated command to undo is carried out like the first."""

    def compensate(self, step: Instance, lane: Lane, generation: int) -> Iterator[Move]:
        if lane.row is not None and lane.row.state is State.COMPENSATED:
            yield self.undo(lane)
        yield from super().compensate(step, lane, generation)


class UndoesWithoutRow(Agents):
    """A command to undo is carried out without asking what ran."""

    def compensate(self, step: Instance, lane: Lane, generation: int) -> Iterator[Move]:
        if lane.row is None or lane.row.state is State.FENCED:
            yield self.undo(lane)
        yield from super().compensate(step, lane, generation)


class OneBudget(Agents):
    """Attempts of the forward way count against the undo."""

    def compensate(self, step: Instance, lane: Lane, generation: int) -> Iterator[Move]:
        if lane.row is None or lane.row.attempt < self.scenario.attempts_max:
            yield from super().compensate(step, lane, generation)


_FAN: Final = scenarios.FAN_OUT
_CHAIN: Final = scenarios.CHAIN
_LATE_CHAIN: Final = Scenario("chain of three, late", {"A": "r.s>a.b", "B": "a.b>c.d", "C": "c.d"}, deadline=True)
_CRASHING: Final = Scenario("chain that only crashes", {"A": "r.s>a.b", "B": "a.b"}, crashes=1, crashing="AB")
_FAILING: Final = Scenario("chain that fails and crashes", {"A": "r.s>a.b", "B": "a.b"}, fails="B", crashes=1, crashing="B")
_PIVOT: Final = replace(scenarios.SHARED_PIVOT, crashes=0, fails="A")
_BEFORE: Final = scenarios.BEFORE_PIVOT
_TWO: Final = Scenario("two side by side", {"A": "r.s", "B": "r.s"})
_LATE_STEP: Final = Scenario("late steps", {"A": "r.s", "B": "r.s"}, late="A")

MUTANTS: Final = (
    Mutant("compensated when known committed are undone", "I1", _FAN,
        reducer=_instead(Undoing, "unsettled", _cached(_only_known_committed)),
    ),
    Mutant("no tombstone", "I1", _LATE_CHAIN, NoTombstone),
    Mutant("tombstone that does not block start", "I6", _LATE_CHAIN, WeakTombstone),
    Mutant("fence and compensate merged", "I3", _LATE_CHAIN, reducer=_instead(Undoing, "asks", _asks_merged(Undoing.asks))),
    Mutant("no descendant rule", "I3", _LATE_CHAIN, reducer=_instead(Undoing, "_nothing_follows", lambda *_: True)),
    Mutant("failed means no effect", "I1", scenarios.RETRIES, FailedMeansNoEffect),
    Mutant("no lease wait", "I4", _CHAIN, NoLeaseWait),
    Mutant("who is presumed dead is taken for dead", "P3", scenarios.TAKEOVER, PresumptionIsProof),
    Mutant("outputs while STARTED", "I3", _LATE_CHAIN, OutputsWhileStarted),
    Mutant("a DONE row answered without its outputs", "I3", _LATE_CHAIN, DoneWithoutOutputs),
    Mutant("a DONE row answered as unknown", "I3", _LATE_CHAIN, DoneAsUnknown),
    Mutant("a DONE row answered as fenced", "I1", _LATE_CHAIN, DoneAsFenced),
    Mutant("a DONE row lost", "I4", replace(_CRASHING, deadline=True), DoneLost),
    Mutant("a DONE row lost, and an empty ledger believed", "I1", replace(_CRASHING, deadline=True), DoneLostUnnoticed),
    Mutant("DONE re-published without its StepCompleted", "L1", _CRASHING, RepeatedWithoutRecord),
    Mutant("a FAILED row dropped in silence", "L1", _FAILING, FailureDropped),
    Mutant("offset committed after the outputs only", "L1", _CRASHING, CommittedAfterOutputs),
    Mutant("offset committed after the journal only", "L1", _CRASHING, CommittedAfterJournal),
    Mutant("pure outputs before their journal record", "I7", scenarios.BESIDE_PIVOT, PureOutputsFirst),
    Mutant("expected by one level", "I2", _LATE_CHAIN, reducer=_instead(reach, "_outputs", _one_level(reach._outputs))),
    Mutant("an unexpected step adopted", "I7", _BEFORE, reducer=_instead(reach, "_closure", _adopting)),
    Mutant("an unexpected step taken as proof of its parent", "I5", _BEFORE, reducer=_instead(reach, "_closure", _inferring)),
    Mutant("an unexpected step dropped", "L1", _CRASHING, reducer=_instead(engine, "read", _dropping)),
    Mutant("C7 not recursive", "I3", scenarios.QUIET, reducer=_instead(Undoing, "settled", _cached(_settled_not_recursive))),
    Mutant("C7 in one pass", "L1", scenarios.EXPIRING_EARLY, reducer=_instead(Undoing, "settled", _cached(_settled_in_one_pass))),
    Mutant("FENCED as proof for a pure step", "I3", scenarios.PURE, reducer=_instead(Place, "hides_outputs", property(_fenced_as_proof))),
    Mutant("tombstones per agent", "I2", _PIVOT, TombstonePerAgent),
    Mutant(
        "everything fenced beside an undecided pivot", "I2", scenarios.BESIDE_PIVOT,
        reducer=_instead(Undoing, "_to_fence", _fence_everything),
    ),
    Mutant("effect NONE claimed on a later attempt", "I1", scenarios.RETRIES, ClaimsNoEffect),
    Mutant("join closure by expected instead of possible", "I3", replace(scenarios.DIAMOND, deadline=True),
        reducer=_instead(reach, "_closure", _without("awaiting")),
    ),
    Mutant("commit early", "I2", _LATE_CHAIN, reducer=_instead(forward, "expected", _commit_early(reach.expected))),
    Mutant("a commit on a person's word alone", "I2", scenarios.WORD_PAST_PIVOT, reducer=_instead(forward, "possible", reach.expected)),
    Mutant("what a word leaves behind is never fenced", "L2", scenarios.WORD_PAST_PIVOT, reducer=_instead(Forward, "asks", lambda _: ())),
    Mutant("every round of a join is its first", "I2", scenarios.LOOP_JOIN,
        reducer=_instead(reach, "awaited_trigger", lambda _: awaited_trigger(0)),
    ),
    Mutant("a loop ends with its first round", "I2", scenarios.LOOP, reducer=_instead(reach, "_outputs", _one_round(reach._outputs))),
    Mutant("off-log timers", "I5", _TWO, explorer=OffTheLog),
    Mutant("I5: the last word counts instead of the first decision", "I5", _CHAIN,
        reducer=_instead(engine, "_decided_back", _back_to_running(engine._decided_back)),
    ),
    Mutant("I6: what runs is answered as fenced", "I6", _LATE_CHAIN, FencesWhatRuns),
    Mutant("I8: a repetition counts", "I8", _LATE_CHAIN, reducer=_instead(engine, "read", _counting_repeats)),
    Mutant("I9: the store forgets what waits for a person", "I9", scenarios.SLOW, reducer=_forgetful_store),
    Mutant("I10: commands numbered instead of derived", "I10", _LATE_CHAIN, reducer=_numbered_commands),
    Mutant("I11: a repeated command undoes again", "I11", _LATE_CHAIN, UndoesAgain),
    Mutant("I12: unexpected steps are on no list", "I12", _LATE_CHAIN, reducer=_instead(Undoing, "unexpected", ())),
    Mutant("I13: what never ran is undone", "I13", _LATE_CHAIN, UndoesWithoutRow,
        _instead(Undoing, "_can_be_undone", _undoing_what_never_ran),
    ),
    Mutant("I14: late although journaled in time", "I14", _LATE_STEP, reducer=_instead(engine, "_deadline_fired", _late_regardless)),
    Mutant("I15: manual resolution does not show", "I15", scenarios.SLOW, reducer=_instead(Saga, "manual", property(lambda _: False))),
    Mutant("I16: forward attempts spend the budget of the undo", "I16", scenarios.RETRIES, OneBudget),
)  # fmt: skip
