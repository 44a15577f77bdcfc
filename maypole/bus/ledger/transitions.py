"""The agent's side of the saga protocol as a table: a step and what is asked of it, to a new step and a verdict.

Pure: no clock, no chance, no I/O. The stores apply it inside a transaction, the model checker applies it as it is.
`TABLE` names a rule for every input in every state; a rule is a function of one screen at most.

An attempt is known by its number in the row. A step without outside effects may begin in memory, without a row; such an
attempt carries the number 0 (`UNWRITTEN`), and its first write finds no row or has lost a race.

On a final step every input of an attempt gets the same answer as `Begin` does: the outcome that is recorded, to be
published again. Whoever lost the race may be the only one left who can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, NamedTuple

from maypole.bus.ledger.step import State, Step, Turn, together
from maypole.schemas.journal import Effect

UNWRITTEN: Final = 0
"""The number of an attempt that began in memory only."""


class Verdict(Enum):
    """What the runtime does next."""

    RUN = "run the attempt that the row now names"
    RECORDED = "the change stands: journal it, publish it, or wait for the retry"
    REPUBLISH = "publish the recorded StepCompleted and the recorded outputs again"
    REJOURNAL_FAILURE = "journal the recorded StepFailed and write its dead letter again"
    REJOURNAL_ABANDONED = "journal StepAbandoned"
    ANSWER_FENCED = "journal StepFenced"
    ANSWER_COMPENSATED = "journal StepCompensated"
    UNDO = "run the undo, then ask for Compensated"
    WAIT = "an attempt may be alive: ask again at the time that is given"
    POSTPONE = "nothing to undo yet: keep the command and ask again later"
    LOST_RACE = "refused: another attempt answers for this step; publish and commit nothing of this one"


class Death(Enum):
    """What is known of the instance that made the last attempt, when somebody else asks."""

    UNKNOWN = "it may live: only time tells"
    PRESUMED = "nobody hears of it: it cannot finish a step that somebody else takes over, but act it may until its lease has passed"
    CERTAIN = "its process has ended: its leases mean nothing"


class Transition(NamedTuple):
    """`after` is what to write, None: no change. `wait_until_ms` goes with `WAIT`."""

    after: Step | None
    verdict: Verdict
    wait_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class Begin:
    """P1. Two claims of one owner on one step never carry the same `lease_until_ms`: a claim that is repeated gets its attempt again.

    `retries` is False where an attempt of unknown fate must not be repeated. A lease counts as passed only at its end
    plus `skew_ms`, the bound on the difference of two clocks.
    """

    owner: str
    lease_until_ms: int
    now_ms: int
    skew_ms: int
    acts: bool
    retries: bool = True
    death: Death = Death.UNKNOWN


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt is over and another one may follow. `effect`: what this attempt may have changed; `elsewhere`: the next one
    waits on a retry topic, and what goes with this says where."""

    attempt: int
    effect: Effect
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Defer:
    """The step waits outside: for its next attempt, or behind an earlier step of its flow. No attempt begins or ends by it.

    The store keeps what goes with it, which says where the step waits. `attempt`: the last one that whoever asks has seen in
    the row; with a later one there, this comes from the past, and would let the next one begin too early.
    """

    attempt: int = 0


@dataclass(frozen=True, slots=True)
class TellLater:
    """The step has come to its end, and a record that lies on a retry topic tells of it when its turn comes. What goes with it
    is the recorded outcome, and where that is."""


@dataclass(frozen=True, slots=True)
class Told:
    """The step has come to its end, and all that it leads to is acknowledged."""


@dataclass(frozen=True, slots=True)
class Finish:
    """P3."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Fail:
    """P5: for good. `effect`: what this attempt may have changed; `over`: it cannot be alive (a thread cannot be stopped)."""

    attempt: int
    effect: Effect
    over: bool = True


@dataclass(frozen=True, slots=True)
class Abandon:
    """The attempt was cut off, what became of it is unknown, and no other may follow."""

    attempt: int
    over: bool = True


@dataclass(frozen=True, slots=True)
class Fence:
    """P6. No chance up to this `generation` may be taken any more."""

    generation: int = 1


@dataclass(frozen=True, slots=True)
class Compensate:
    """P7: may the step be undone?"""

    now_ms: int
    skew_ms: int
    death: Death = Death.UNKNOWN


@dataclass(frozen=True, slots=True)
class Compensated:
    """P7: the undo has returned."""


@dataclass(frozen=True, slots=True)
class Retry:
    """An operator gives a failed step another chance, once for each `generation`. What goes with it says where the step waits."""

    generation: int


Input = Begin | AttemptFailed | Defer | TellLater | Told | Finish | Fail | Abandon | Fence | Compensate | Compensated | Retry


def apply(step: Step | None, asked: Input) -> Transition:
    """`step` is None where there is no row."""
    return TABLE[type(asked)][None if step is None else step.state](step, asked)


def _answer(step: Step, asked: object) -> Transition:
    """The outcome that is recorded."""
    return Transition(None, _ANSWERS[step.state])


def _lost(step: Step | None, asked: object) -> Transition:
    return Transition(None, Verdict.LOST_RACE)


def _postponed(step: Step | None, asked: object) -> Transition:
    return Transition(None, Verdict.POSTPONE)


def _begin_first(step: None, asked: Begin) -> Transition:
    return Transition(Step(State.STARTED, 1, asked.owner, asked.lease_until_ms, acts=asked.acts), Verdict.RUN)


def _begin_again(step: Step, asked: Begin) -> Transition:
    if step.leased and step.owner == asked.owner and step.lease_until_ms == asked.lease_until_ms:
        return Transition(None, Verdict.RUN)  # our own claim, whose answer was lost
    acts = step.acts or asked.acts
    until = step.may_act_until_ms if acts else step.lease_until_ms
    # Who only makes events is refused when it wants to finish. What it does outside nobody can refuse: then a zombie must be over.
    gone = asked.death is Death.CERTAIN or (asked.death is Death.PRESUMED and not acts)
    if not gone and _is_early(asked, until):
        return Transition(None, Verdict.WAIT, until + asked.skew_ms)
    # Of an attempt that nobody has declared over, nobody knows what it changed.
    effect = step.effect_possible
    if not asked.retries and (step.leased or effect is not Effect.NONE):
        over = replace(step, state=State.ABANDONED, lease_until_ms=0, alive_until_ms=0, effect=effect)
        return Transition(over, Verdict.REJOURNAL_ABANDONED)
    begun = Step(State.STARTED, step.attempt + 1, asked.owner, asked.lease_until_ms, 0, acts, effect, step.generation, step.turn)
    return Transition(begun, Verdict.RUN)


def _is_early(asked: Begin | Compensate, until_ms: int) -> bool:
    """By some clock within the bound that time has not come. 0 is no time."""
    return until_ms > 0 and asked.now_ms < until_ms + asked.skew_ms


def _holds(step: Step, attempt: int) -> bool:
    """Whether this attempt is the one that the row waits for: a zombie's is not (P3)."""
    return attempt != UNWRITTEN and step.attempt == attempt and step.leased


def _attempt_failed_unwritten(step: None, asked: AttemptFailed) -> Transition:
    if asked.attempt != UNWRITTEN:
        return _lost(step, asked)
    acts = asked.effect is not Effect.NONE
    return Transition(Step(State.STARTED, 1, acts=acts, effect=asked.effect, turn=_turn(Turn.NONE, asked)), Verdict.RECORDED)


def _attempt_failed(step: Step, asked: AttemptFailed) -> Transition:
    if _holds(step, asked.attempt):
        effect = together(step.effect, asked.effect)
        return Transition(replace(step, lease_until_ms=0, effect=effect, turn=_turn(step.turn, asked)), Verdict.RECORDED)
    if not step.leased and step.attempt == max(asked.attempt, 1):  # told twice
        known = step.turn is _turn(step.turn, asked)
        return Transition(None if known else replace(step, turn=Turn.AWAITED), Verdict.RECORDED)
    return _lost(step, asked)


def _turn(before: Turn, asked: AttemptFailed) -> Turn:
    return Turn.AWAITED if asked.elsewhere else before


def _defer_first(step: None, asked: Defer) -> Transition:
    return Transition(Step(State.STARTED, turn=Turn.AWAITED), Verdict.RECORDED)


def _defer(step: Step, asked: Defer) -> Transition:
    return Transition(replace(step, turn=Turn.AWAITED), Verdict.RECORDED) if step.attempt == asked.attempt else _lost(step, asked)


def _tell_later(step: Step, asked: TellLater) -> Transition:
    """Not once it was told: then nobody would tell it in its turn, and its flow would wait for ever."""
    if step.turn is Turn.OVER:
        return _answer(step, asked)
    return Transition(replace(step, turn=Turn.AWAITED) if step.turn is Turn.NONE else None, Verdict.RECORDED)


def _told(step: Step, asked: Told) -> Transition:
    return Transition(None if step.turn is Turn.OVER else replace(step, turn=Turn.OVER), Verdict.RECORDED)


def _finish_unwritten(step: None, asked: Finish) -> Transition:
    if asked.attempt != UNWRITTEN:
        return _lost(step, asked)
    return Transition(Step(State.DONE, 1), Verdict.RECORDED)


def _finish(step: Step, asked: Finish) -> Transition:
    if not _holds(step, asked.attempt):
        return _lost(step, asked)
    effect = Effect.APPLIED if step.acts or step.effect is not Effect.NONE else Effect.NONE
    # Written out, because it happens to every step and `replace` takes ten times as long.
    after = Step(State.DONE, step.attempt, step.owner, 0, step.alive_until_ms, step.acts, effect, step.generation, step.turn)
    return Transition(after, Verdict.RECORDED)


def _fail_unwritten(step: None, asked: Fail) -> Transition:
    if asked.attempt != UNWRITTEN:
        return _lost(step, asked)
    return Transition(Step(State.FAILED, 1, acts=asked.effect is not Effect.NONE, effect=asked.effect), Verdict.RECORDED)


def _fail(step: Step, asked: Fail) -> Transition:
    waits_for_a_retry = not step.leased and asked.attempt == step.attempt
    if not _holds(step, asked.attempt) and not waits_for_a_retry:
        return _lost(step, asked)
    effect = together(step.effect, asked.effect)
    if step.acts and not asked.over:
        effect = together(effect, Effect.UNKNOWN)
    lease = 0 if asked.over else step.lease_until_ms
    return Transition(replace(step, state=State.FAILED, lease_until_ms=lease, effect=effect), Verdict.RECORDED)


def _abandon(step: Step, asked: Abandon) -> Transition:
    if not _holds(step, asked.attempt):
        return _lost(step, asked)
    lease = 0 if asked.over else step.lease_until_ms
    after = replace(step, state=State.ABANDONED, lease_until_ms=lease, effect=step.effect_possible)
    return Transition(after, Verdict.REJOURNAL_ABANDONED)


def _abandoned(step: Step, asked: Abandon) -> Transition:
    """A fence came first, and now the attempt is known to be over: its undo need not wait for the lease."""
    over = asked.over and _holds(step, asked.attempt)
    return Transition(replace(step, lease_until_ms=0) if over else None, Verdict.REJOURNAL_ABANDONED)


def _bury(step: None, asked: Fence | Compensate) -> Transition:
    """The tombstone of a step that never began: it must never begin."""
    generation = asked.generation if isinstance(asked, Fence) else 1
    return Transition(Step(State.FENCED, generation=generation), Verdict.ANSWER_FENCED)


def _fence_started(step: Step, asked: Fence) -> Transition:
    effect, generation = step.effect_possible, max(step.generation, asked.generation)
    if effect is Effect.NONE:
        # Nothing was changed, and what may still run cannot finish any more: as if it had never begun.
        return Transition(replace(step, state=State.FENCED, generation=generation), Verdict.ANSWER_FENCED)
    # The lease stays: until it has passed, the attempt may act, and an undo would come too early.
    return Transition(replace(step, state=State.ABANDONED, effect=effect, generation=generation), Verdict.REJOURNAL_ABANDONED)


def _fence_ended(step: Step, asked: Fence) -> Transition:
    """How it ended is the answer; the chance that the fence names, if nobody has taken it yet, nobody will."""
    after = replace(step, generation=asked.generation) if asked.generation > step.generation else None
    return Transition(after, _ANSWERS[step.state])


def _compensate(step: Step, asked: Compensate) -> Transition:
    if step.state is State.FAILED and step.effect is Effect.NONE:
        return _answer(step, asked)
    until = step.may_act_until_ms
    if asked.death is not Death.CERTAIN and _is_early(asked, until):
        return Transition(None, Verdict.WAIT, until + asked.skew_ms)
    return Transition(None, Verdict.UNDO)


def _compensated(step: Step, asked: Compensated) -> Transition:
    if step.state is State.FAILED and step.effect is Effect.NONE:
        return _answer(step, asked)
    return Transition(replace(step, state=State.COMPENSATED, lease_until_ms=0, alive_until_ms=0), Verdict.ANSWER_COMPENSATED)


def _retry_failed(step: Step, asked: Retry) -> Transition:
    if asked.generation <= step.generation:
        return _answer(step, asked)  # taken before, or fenced
    # An attempt that may be alive stays known, and does not hold the step any more.
    after = replace(
        step, state=State.STARTED, lease_until_ms=0, alive_until_ms=step.may_act_until_ms, generation=asked.generation, turn=Turn.AWAITED
    )
    return Transition(after, Verdict.RECORDED)


def _retry_started(step: Step, asked: Retry) -> Transition:
    return Transition(None, Verdict.RECORDED if step.generation >= asked.generation else Verdict.POSTPONE)


_ANSWERS: Final[Mapping[State, Verdict]] = {
    State.DONE: Verdict.REPUBLISH,
    State.FAILED: Verdict.REJOURNAL_FAILURE,
    State.ABANDONED: Verdict.REJOURNAL_ABANDONED,
    State.FENCED: Verdict.ANSWER_FENCED,
    State.COMPENSATED: Verdict.ANSWER_COMPENSATED,
}

_Rule = Callable[[Any, Any], Transition]


def _ended(rule: _Rule) -> dict[State | None, _Rule]:
    return {state: rule for state in State if state.final}


_FINAL: Final = _ended(_answer)

TABLE: Final[Mapping[type[Input], Mapping[State | None, _Rule]]] = {
    Begin:         {**_FINAL, None: _begin_first,              State.STARTED: _begin_again},
    AttemptFailed: {**_FINAL, None: _attempt_failed_unwritten, State.STARTED: _attempt_failed},
    Defer:         {**_FINAL, None: _defer_first,              State.STARTED: _defer},
    TellLater:     {**_ended(_tell_later), None: _lost,        State.STARTED: _lost},
    Told:          {**_ended(_told), None: _lost,              State.STARTED: _lost},
    Finish:        {**_FINAL, None: _finish_unwritten,         State.STARTED: _finish},
    Fail:          {**_FINAL, None: _fail_unwritten,           State.STARTED: _fail},
    Abandon:       {**_FINAL, None: _lost,                     State.STARTED: _abandon,       State.ABANDONED: _abandoned},
    Fence:         {**_FINAL, None: _bury,                     State.STARTED: _fence_started,
                    State.FAILED: _fence_ended, State.ABANDONED: _fence_ended},
    Compensate:    {**_FINAL, None: _bury,                     State.STARTED: _postponed,
                    State.DONE: _compensate,  State.FAILED: _compensate,  State.ABANDONED: _compensate},
    Compensated:   {**_FINAL, None: _postponed,                State.STARTED: _postponed,
                    State.DONE: _compensated, State.FAILED: _compensated, State.ABANDONED: _compensated},
    Retry:         {**_FINAL, None: _lost,                     State.STARTED: _retry_started, State.FAILED: _retry_failed},
}  # fmt: skip
