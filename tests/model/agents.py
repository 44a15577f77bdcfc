"""The agents' half: every step with its row, its attempts and what it has sent. Rows change by the project's own table only.

Time is relative to each step: a lease is fresh, or it has passed. What may happen in between, happens at any moment before.
Ledger write, journal record, outputs and the end of a delivery are moves of their own, and a process may die between any two.
Answers to commands need no memory: the row is the answer, and a command can be delivered again at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from maypole.bus.ledger.step import State, Step
from maypole.bus.ledger.transitions import (
    UNWRITTEN,
    AttemptFailed,
    Begin,
    Compensate,
    Compensated,
    Death,
    Fail,
    Fence,
    Finish,
    Input,
    Retry,
    Transition,
    Verdict,
    apply,
)
from maypole.schemas.journal import Effect
from maypole.services.saga import Ask
from tests.model.coordinator import RecordKey
from tests.model.scenario import Instance, Scenario

NOW: Final = 100
LEASE: Final = 2
SKEW: Final = 1
PASSED: Final = NOW - SKEW
"""A lease that no attempt outlives, on any clock."""

AWAY, HERE, COMMITTED, GONE = range(4)
"""Of a delivery: nobody works on it; somebody does; its offset is committed; nobody ever will."""

BEGUN, TOLD, ACTED = range(3)
"""Of an attempt: its StepStarted is on its way; is acknowledged; it has acted."""


class Lane(NamedTuple):
    """One step, on the agent's side and outside. `flight` is what is on its way to the log."""

    row: Step | None = None
    attempts: tuple[tuple[int, int], ...] = ()
    delivery: int = AWAY
    flight: frozenset[tuple[object, ...]] = frozenset()
    effect: bool = False
    ran: bool = False
    undone: int = 0
    """How often, as the outside has seen it."""
    choice: int = 0

    @property
    def generation(self) -> int:
        return 1 if self.row is None else self.row.generation


class Move(NamedTuple):
    """What one thing that happens does: to the step, to the journal, to the topics. `wrong` is what must never happen."""

    name: str
    lane: Lane
    record: RecordKey | None = None
    seen: int = 0
    crash: bool = False
    whole: bool = False
    """Whether it befalls the process: what else the agent is at dies with it."""
    wrong: str = ""


class Agents:
    """What can happen to one step. Mutants override a method, or the table."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        triggers = {part for step in scenario.steps for part in _bits(step.parts)}
        self._heard = triggers

    # What a mutant replaces.

    def applied(self, row: Step | None, asked: Input) -> Transition:
        return apply(row, asked)

    def sent_when_done(self, step: Instance, lane: Lane) -> frozenset[tuple[object, ...]]:
        """Once the row is DONE, record and outputs may be published side by side (P4)."""
        return frozenset({("record", self.done(step, lane)), *self.outputs(step, lane.choice)})

    def sent_when_repeated(self, step: Instance, lane: Lane) -> frozenset[tuple[object, ...]]:
        return self.sent_when_done(step, lane)

    def sent_by_pure(self, step: Instance, lane: Lane) -> frozenset[tuple[object, ...]]:
        """A step without a row waits for its record before its outputs leave."""
        return frozenset({("strict", self.done(step, lane))})

    def answer_of_done(self, step: Instance, lane: Lane) -> RecordKey | None:
        return self.done(step, lane)

    def after_failure(self, step: Instance, lane: Lane) -> Lane:
        """A failed row found by a redelivery: its record may have been lost."""
        return lane._replace(delivery=HERE, flight=lane.flight | {("record", self.failed(step, lane))})

    def may_commit(self, step: Instance, lane: Lane) -> bool:
        """Whether the input's offset may be committed: everything is acknowledged."""
        return not lane.flight

    def effect_of_failure(self, phase: int) -> Effect:
        """P5: NONE only if the attempt cannot have acted."""
        return Effect.NONE if phase < ACTED else Effect.UNKNOWN

    def survives(self, row: Step | None) -> Step | None:
        """What of a row is there after its process died."""
        return row

    def shares_tombstones(self, one: Instance, other: Instance) -> bool:
        """Whether a fence for one step is one for the other."""
        return one.index == other.index

    # What can happen.

    def moves(self, step: Instance, lane: Lane, triggered: bool, commands: tuple[tuple[Ask, int], ...]) -> Iterator[Move]:
        yield from self._deliver(step, lane)
        if lane.delivery != GONE:
            if triggered:
                yield from self._begin(step, lane)
            for kind, generation in commands:
                yield from self._obey(step, lane, kind, generation)
        for attempt in lane.attempts:
            yield from self._work(step, lane, attempt)
        yield from self._pass_time(step, lane)
        yield from self._crash(step, lane)

    def _deliver(self, step: Instance, lane: Lane) -> Iterator[Move]:
        for item in sorted(lane.flight, key=repr):  # the order of a set differs from run to run
            less = lane._replace(flight=lane.flight - {item})
            match item:
                case ("started", int(number)):
                    attempts = tuple((n, TOLD if n == number and phase == BEGUN else phase) for n, phase in lane.attempts)
                    yield Move("journal started", less._replace(attempts=attempts), ("started", step.index, number))
                case ("record", key):
                    yield Move(f"journal {key[0]}", self._rested(step, less), key)  # type: ignore[index,arg-type]
                case ("strict", key):
                    after = less._replace(flight=less.flight | self.outputs(step, lane.choice))
                    yield Move(f"journal {key[0]}", self._rested(step, after), key)  # type: ignore[index,arg-type]
                case ("output", int(bit)):
                    yield Move("output visible", self._rested(step, less), seen=bit)

    def _begin(self, step: Instance, lane: Lane) -> Iterator[Move]:
        own = lane.delivery == HERE and not lane.attempts and lane.row is not None and lane.row.state is State.STARTED
        if lane.delivery != AWAY and not own:
            return
        if not step.reaction.acts_outside and lane.row is None:
            if not lane.attempts:
                yield Move("begin", lane._replace(attempts=((UNWRITTEN, ACTED),), delivery=HERE))
            return
        number = (0 if lane.row is None else lane.row.attempt) + 1
        for death in self._deaths(lane):
            retries = not self.scenario.is_in(step.name, self.scenario.never)
            begin = Begin(f"owner {number}", NOW + LEASE, NOW, SKEW, step.reaction.acts_outside, retries, death)
            after, verdict, _ = self.applied(lane.row, begin)
            if verdict is Verdict.RUN and after is not None:
                phase = BEGUN if step.reaction.acts_outside else ACTED
                told = {("started", after.attempt)} if step.reaction.acts_outside else set()
                attempts = tuple(sorted((*lane.attempts, (after.attempt, phase))))
                yield Move("begin", lane._replace(row=after, attempts=attempts, delivery=HERE, flight=lane.flight | told))
            elif verdict not in (Verdict.WAIT, Verdict.RUN):
                yield Move("redelivered", self._repeated(step, lane._replace(row=after or lane.row), verdict))

    def _deaths(self, lane: Lane) -> tuple[Death, ...]:
        """What a successor may know; that somebody is dead cannot be proved while an attempt lives."""
        if not self.scenario.takeover or lane.delivery != AWAY:
            return (Death.UNKNOWN,)
        return (Death.UNKNOWN, Death.PRESUMED) if lane.attempts else tuple(Death)

    def _repeated(self, step: Instance, lane: Lane, verdict: Verdict) -> Lane:
        lane = lane._replace(delivery=HERE)
        if verdict is Verdict.REPUBLISH:
            return self._rested(step, lane._replace(flight=lane.flight | self.sent_when_repeated(step, lane)))
        if verdict is Verdict.REJOURNAL_FAILURE:
            return self._rested(step, self.after_failure(step, lane))
        return self._rested(step, lane._replace(flight=lane.flight | {("record", self.answer(step, lane, 1))}))

    def _work(self, step: Instance, lane: Lane, attempt: tuple[int, int]) -> Iterator[Move]:
        number, phase = attempt
        less = lane._replace(attempts=tuple(each for each in lane.attempts if each != attempt))
        if phase == TOLD:
            wrong = ""
            if lane.undone and not lane.effect:
                wrong = f"I4 {step.name} acts again after its undo"
            elif lane.row is not None and lane.row.state is State.FENCED:
                wrong = f"I6 {step.name} acts behind its tombstone"
            elif lane.row is not None and lane.row.state is State.DONE:
                wrong = f"P3 {step.name} acts after it is done"
            acted = less._replace(attempts=tuple(sorted((*less.attempts, (number, ACTED)))), effect=True, ran=True)
            yield Move("act", acted, wrong=wrong)
        if phase == ACTED:
            for choice in range(len(step.options)):
                yield from self._finish(step, less._replace(choice=choice if _is_open(lane) else lane.choice), number)
        name = step.name
        if self.scenario.is_in(name, self.scenario.fails):
            yield from self._fail(step, less, Fail(number, self._claimed(step, phase)))
        if self.scenario.is_in(name, self.scenario.retries) and max(number, 1) < self.scenario.attempts_max and not step.reaction.is_pure:
            after, verdict, _ = self.applied(lane.row, AttemptFailed(number, self._claimed(step, phase)))
            if verdict is Verdict.RECORDED:
                yield Move("attempt fails", less._replace(row=after or lane.row))

    def _claimed(self, step: Instance, phase: int) -> Effect:
        return self.effect_of_failure(phase) if step.reaction.acts_outside else Effect.NONE

    def _finish(self, step: Instance, lane: Lane, number: int) -> Iterator[Move]:
        if step.reaction.is_pure:
            yield Move("finish", lane._replace(flight=lane.flight | self.sent_by_pure(step, lane)))
            return
        after, verdict, _ = self.applied(lane.row, Finish(number))
        if verdict is Verdict.RECORDED and after is not None:
            done = lane._replace(row=after)
            yield Move("row DONE", self._rested(step, done._replace(flight=done.flight | self.sent_when_done(step, done))))
        else:
            yield Move("finish refused", self._lost(step, lane, verdict))

    def _fail(self, step: Instance, lane: Lane, fail: Fail) -> Iterator[Move]:
        if step.reaction.is_pure:
            yield Move("fail", lane._replace(flight=lane.flight | {("record", ("failed", step.index, Effect.NONE, lane.generation))}))
            return
        after, verdict, _ = self.applied(lane.row, fail)
        if verdict is Verdict.RECORDED and after is not None:
            failed = lane._replace(row=after)
            yield Move("row FAILED", self._rested(step, failed._replace(flight=failed.flight | {("record", self.failed(step, failed))})))
        else:
            yield Move("fail refused", self._lost(step, lane, verdict))

    def _lost(self, step: Instance, lane: Lane, verdict: Verdict) -> Lane:
        if verdict in (Verdict.LOST_RACE, Verdict.RECORDED, Verdict.POSTPONE):
            return lane
        if verdict is Verdict.REPUBLISH:
            return lane._replace(flight=lane.flight | self.sent_when_repeated(step, lane))
        return lane._replace(flight=lane.flight | {("record", self.answer(step, lane, 1))})

    def _pass_time(self, step: Instance, lane: Lane) -> Iterator[Move]:
        row = lane.row
        if row is None or not step.reaction.acts_outside:
            return
        fresh = row.lease_until_ms > PASSED or row.alive_until_ms > PASSED
        if not fresh and not lane.attempts:
            return
        crashing = self.scenario.is_in(step.name, self.scenario.crashing)
        if row.state is State.STARTED and lane.delivery == HERE and (not crashing or row.attempt >= self.scenario.attempts_max):
            return  # only where something goes wrong an attempt does not come to an end in time
        aged = row
        if fresh:
            aged = Step(
                row.state, row.attempt, row.owner, min(row.lease_until_ms, PASSED), min(row.alive_until_ms, PASSED), row.acts, row.effect,
                row.generation, row.turn,
            )  # fmt: skip
        yield Move("leases pass", lane._replace(row=aged, attempts=()))

    def _crash(self, step: Instance, lane: Lane) -> Iterator[Move]:
        if not self.scenario.is_in(step.name, self.scenario.crashing) or not (lane.delivery == HERE or lane.attempts or lane.flight):
            return
        if lane.delivery == GONE:
            return
        for_good = self.scenario.is_in(step.name, self.scenario.silent)
        yield Move("dies for good" if for_good else "dies", self.died(step, lane), crash=True, whole=True)
        if lane.delivery == HERE and not for_good:
            yield Move("loses its partition", lane._replace(delivery=AWAY), crash=True)

    def died(self, step: Instance, lane: Lane) -> Lane:
        """What is left of a step when the process ends that is at it."""
        if lane.delivery == GONE or self.scenario.is_in(step.name, self.scenario.silent):
            return lane._replace(delivery=GONE, attempts=(), flight=frozenset())
        after = COMMITTED if lane.delivery == COMMITTED else AWAY
        return lane._replace(row=self.survives(lane.row), delivery=after, attempts=(), flight=frozenset())

    # Commands.

    def _obey(self, step: Instance, lane: Lane, kind: Ask, generation: int) -> Iterator[Move]:
        match kind:
            case Ask.FENCE:
                yield from self.fence(step, lane, generation)
            case Ask.COMPENSATE:
                yield from self.compensate(step, lane, generation)
            case Ask.EXPIRE:
                yield from self._change_or_answer(step, lane, Fail(UNWRITTEN, Effect.NONE), "expire", generation)
            case Ask.RETRY:
                yield from self._retry(step, lane, generation)

    def fence(self, step: Instance, lane: Lane, generation: int) -> Iterator[Move]:
        yield from self._change_or_answer(step, lane, Fence(generation), "fence", generation)

    def _change_or_answer(self, step: Instance, lane: Lane, asked: Input, name: str, generation: int) -> Iterator[Move]:
        after, verdict, _ = self.applied(lane.row, asked)
        if after is not None:
            yield Move(f"{name}: row {after.state}", self._rested(step, lane._replace(row=after)))
        elif verdict is not Verdict.LOST_RACE:
            yield from self.answered(step, lane, name, generation)

    def answered(self, step: Instance, lane: Lane, name: str, generation: int) -> Iterator[Move]:
        key = self.answer(step, lane, generation)
        if key is not None:
            yield Move(f"{name}: answer {key[0]}", lane, key)

    def compensate(self, step: Instance, lane: Lane, generation: int) -> Iterator[Move]:
        if self.scenario.is_in(step.name, self.scenario.undo_fails):
            yield Move("undo fails", lane, ("undo failed", step.index, generation))
        verdict = self.applied(lane.row, Compensate(NOW, SKEW)).verdict
        if verdict is Verdict.UNDO:
            if not lane.undone or lane.effect:
                yield self.undo(lane)
            else:
                after = self.applied(lane.row, Compensated()).after
                assert after is not None
                yield Move("row COMPENSATED", self._rested(step, lane._replace(row=after)))
        elif verdict in (Verdict.ANSWER_FENCED, Verdict.ANSWER_COMPENSATED, Verdict.REJOURNAL_FAILURE):
            yield from self._change_or_answer(step, lane, Compensate(NOW, SKEW), "compensate", generation)

    def undo(self, lane: Lane) -> Move:
        return Move("undo", lane._replace(effect=False, undone=lane.undone + 1))

    def _retry(self, step: Instance, lane: Lane, generation: int) -> Iterator[Move]:
        """FAILED, and a person gives it another chance: the next generation begins, once. A fence of that generation forbids it."""
        after = self.applied(lane.row, Retry(generation)).after
        if after is not None and lane.row is not None and step.reaction.within_ms is not None and lane.row.attempt == 0:
            # Its time was up before it began: the join is closed, and says so once more.
            again = lane._replace(row=replace(after, state=State.FAILED))
            yield Move("another chance expires", again._replace(flight=again.flight | {("record", self.failed(step, again))}))
        elif after is not None:
            yield Move("another chance", lane._replace(row=after, delivery=AWAY))
        elif lane.row is not None and lane.row.state.final:
            yield from self.answered(step, lane, "retry", generation)

    # Records.

    def answer(self, step: Instance, lane: Lane, generation: int) -> RecordKey | None:
        assert lane.row is not None
        match lane.row.state:
            case State.DONE:
                return self.answer_of_done(step, lane)
            case State.FAILED:
                return self.failed(step, lane)
            case State.ABANDONED:
                return ("abandoned", step.index, lane.generation)
            case State.FENCED:
                return ("fenced", step.index, lane.row.attempt)
            case State.COMPENSATED:
                return ("compensated", step.index, generation)
        return None

    def done(self, step: Instance, lane: Lane) -> RecordKey:
        return ("done", step.index, Effect.APPLIED if step.reaction.acts_outside else Effect.NONE, lane.choice)

    def failed(self, step: Instance, lane: Lane) -> RecordKey:
        assert lane.row is not None
        return ("failed", step.index, lane.row.effect, lane.generation)

    def outputs(self, step: Instance, choice: int) -> frozenset[tuple[object, ...]]:
        bits = (self.scenario.events[output] for output in step.options[choice])
        return frozenset(("output", bit) for bit in bits if bit in self._heard)

    def _rested(self, step: Instance, lane: Lane) -> Lane:
        """The offset is committed as soon as it may be: a crash before that would only repeat what changes nothing."""
        if lane.delivery == HERE and not lane.attempts and self.may_commit(step, lane):
            final = lane.row.state.final if lane.row is not None else step.reaction.is_pure
            if final:
                return lane._replace(delivery=COMMITTED)
        return lane


def _is_open(lane: Lane) -> bool:
    return lane.row is None or not lane.row.state.final


def _bits(mask: int) -> Iterator[int]:
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit
