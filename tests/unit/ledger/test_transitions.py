"""The table is complete, and what it says holds in a world of instances, leases, wrong clocks and deaths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from maypole.bus.ledger.step import State, Step, Turn, together
from maypole.bus.ledger.transitions import (
    TABLE,
    UNWRITTEN,
    Abandon,
    AttemptFailed,
    Begin,
    Compensate,
    Compensated,
    Death,
    Defer,
    Fail,
    Fence,
    Finish,
    Input,
    Retry,
    TellLater,
    Told,
    Transition,
    Verdict,
    apply,
)
from maypole.schemas.journal import Effect

SKEW = 5
LEASE = 100


def begin(now: int, *, owner: str = "one", acts: bool = True, retries: bool = True, death: Death = Death.UNKNOWN) -> Begin:
    return Begin(owner, now + LEASE, now, SKEW, acts, retries, death)


def started(**changes: object) -> Step:
    return replace(Step(State.STARTED, 2, "one", LEASE, acts=True), **changes)  # type: ignore[arg-type]


def test_every_input_has_a_rule_in_every_state() -> None:
    assert set(TABLE) == set(get_args(Input))
    assert {asked: set(rules) for asked, rules in TABLE.items()} == {asked: {None, *State} for asked in TABLE}


INPUTS: dict[str, Input] = {
    "begin": begin(50, owner="two"), "begin late": begin(LEASE + SKEW, owner="two"), "failed": AttemptFailed(2, Effect.NONE),
    "defer": Defer(2), "finish": Finish(2), "fail": Fail(2, Effect.NONE), "abandon": Abandon(2), "fence": Fence(),
    "fence the next chance": Fence(2), "compensate": Compensate(50, SKEW), "compensated": Compensated(), "retry": Retry(2),
    "tell later": TellLater(), "told": Told(),
}  # fmt: skip

SAME: State | str = "same"


def always(verdict: Verdict, state: State) -> dict[str, tuple[State | str, Verdict]]:
    return dict.fromkeys(INPUTS, (SAME, verdict)) | dict.fromkeys(("tell later", "told"), (state, Verdict.RECORDED))


CHANCE: dict[str, tuple[State | str, Verdict]] = {
    "fence the next chance": (State.FAILED, Verdict.REJOURNAL_FAILURE), "retry": (State.STARTED, Verdict.RECORDED),
}  # fmt: skip

EXPECTED: dict[str, dict[str, tuple[State | str, Verdict]]] = {
    "absent": {
        "begin": (State.STARTED, Verdict.RUN), "begin late": (State.STARTED, Verdict.RUN), "failed": (SAME, Verdict.LOST_RACE),
        "defer": (State.STARTED, Verdict.RECORDED),
        "finish": (SAME, Verdict.LOST_RACE), "fail": (SAME, Verdict.LOST_RACE), "abandon": (SAME, Verdict.LOST_RACE),
        "fence": (State.FENCED, Verdict.ANSWER_FENCED), "fence the next chance": (State.FENCED, Verdict.ANSWER_FENCED),
        "compensate": (State.FENCED, Verdict.ANSWER_FENCED), "compensated": (SAME, Verdict.POSTPONE), "retry": (SAME, Verdict.LOST_RACE),
        "tell later": (SAME, Verdict.LOST_RACE), "told": (SAME, Verdict.LOST_RACE),
    },
    "started": {
        "begin": (SAME, Verdict.WAIT), "begin late": (State.STARTED, Verdict.RUN), "failed": (State.STARTED, Verdict.RECORDED),
        "defer": (State.STARTED, Verdict.RECORDED), "finish": (State.DONE, Verdict.RECORDED), "fail": (State.FAILED, Verdict.RECORDED),
        "abandon": (State.ABANDONED, Verdict.REJOURNAL_ABANDONED), "fence": (State.ABANDONED, Verdict.REJOURNAL_ABANDONED),
        "fence the next chance": (State.ABANDONED, Verdict.REJOURNAL_ABANDONED),
        "compensate": (SAME, Verdict.POSTPONE), "compensated": (SAME, Verdict.POSTPONE), "retry": (SAME, Verdict.POSTPONE),
        "tell later": (SAME, Verdict.LOST_RACE), "told": (SAME, Verdict.LOST_RACE),
    },
    "done": always(Verdict.REPUBLISH, State.DONE)
    | {"compensate": (SAME, Verdict.UNDO), "compensated": (State.COMPENSATED, Verdict.ANSWER_COMPENSATED)},
    "failed, no effect": always(Verdict.REJOURNAL_FAILURE, State.FAILED) | CHANCE,
    "failed, effect unknown": always(Verdict.REJOURNAL_FAILURE, State.FAILED)
    | CHANCE
    | {"compensate": (SAME, Verdict.UNDO), "compensated": (State.COMPENSATED, Verdict.ANSWER_COMPENSATED)},
    "abandoned, may be alive": always(Verdict.REJOURNAL_ABANDONED, State.ABANDONED)
    | {"abandon": (State.ABANDONED, Verdict.REJOURNAL_ABANDONED), "fence the next chance": (State.ABANDONED, Verdict.REJOURNAL_ABANDONED)}
    | {"compensate": (SAME, Verdict.WAIT), "compensated": (State.COMPENSATED, Verdict.ANSWER_COMPENSATED)},
    "fenced": always(Verdict.ANSWER_FENCED, State.FENCED),
    "compensated": always(Verdict.ANSWER_COMPENSATED, State.COMPENSATED),
}  # fmt: skip

ROWS: dict[str, Step | None] = {
    "absent": None,
    "started": started(),
    "done": Step(State.DONE, 2, "one", acts=True, effect=Effect.APPLIED),
    "failed, no effect": Step(State.FAILED, 2, "one"),
    "failed, effect unknown": Step(State.FAILED, 2, "one", effect=Effect.UNKNOWN),
    "abandoned, may be alive": Step(State.ABANDONED, 2, "one", LEASE, acts=True, effect=Effect.UNKNOWN),
    "fenced": Step(State.FENCED),
    "compensated": Step(State.COMPENSATED, 2, "one"),
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("asked", INPUTS)
def test_each_input_in_each_state(row: str, asked: str) -> None:
    state, verdict = EXPECTED[row][asked]
    found = apply(ROWS[row], INPUTS[asked])
    assert found.verdict is verdict
    assert (SAME if found.after is None else found.after.state) == state


@pytest.mark.parametrize("attempt", [UNWRITTEN, 1, 3])
@pytest.mark.parametrize("make", [Finish, Abandon, lambda n: Fail(n, Effect.NONE), lambda n: AttemptFailed(n, Effect.NONE)])
def test_an_attempt_that_the_row_does_not_name_changes_nothing(attempt: int, make: type[Finish]) -> None:
    assert apply(started(), make(attempt)) == Transition(None, Verdict.LOST_RACE)


def test_a_step_that_is_deferred_has_had_no_attempt_and_may_begin_its_first() -> None:
    waiting = apply(None, Defer()).after
    assert waiting == Step(State.STARTED, turn=Turn.AWAITED)
    assert apply(waiting, Defer()) == Transition(waiting, Verdict.RECORDED)
    begun = apply(waiting, begin(0, retries=False)).after
    assert begun is not None and (begun.attempt, begun.effect) == (1, Effect.NONE)
    assert apply(waiting, Fence()).verdict is Verdict.ANSWER_FENCED
    assert apply(started(), Defer(2)).after == started(turn=Turn.AWAITED), "an attempt under way is not touched"


def test_where_a_step_waited_before_its_last_attempt_is_not_where_it_waits() -> None:
    """The word of a zombie arrives late, and the next attempt would begin too early."""
    failed = apply(started(), AttemptFailed(2, Effect.NONE)).after
    for attempt in (0, 1, 3):
        assert apply(failed, Defer(attempt)) == Transition(None, Verdict.LOST_RACE)
    assert failed is not None and apply(failed, Defer(2)) == Transition(replace(failed, turn=Turn.AWAITED), Verdict.RECORDED)


@pytest.mark.parametrize("ended", [Finish(3), Fail(3, Effect.NONE)])
@pytest.mark.parametrize("waits", [Defer(2), AttemptFailed(2, Effect.NONE, elsewhere=True)])
def test_a_step_that_waited_elsewhere_is_waited_for_until_it_was_told(waits: Input, ended: Input) -> None:
    waiting = apply(started(lease_until_ms=0), waits).after
    assert waiting is not None and waiting.turn is Turn.AWAITED
    begun = apply(waiting, begin(0)).after
    assert apply(begun, Told()) == Transition(None, Verdict.LOST_RACE), "only its end can be told"
    over = apply(begun, ended).after
    assert over is not None and over.state.final and over.waits
    told = apply(over, Told()).after
    assert told is not None and (told.state, told.waits) == (over.state, False)
    assert apply(told, Told()) == Transition(None, Verdict.RECORDED)


def test_what_was_told_does_not_wait_again() -> None:
    """The word of a zombie arrives late, and nobody would be left to tell the step."""
    done = apply(None, Finish(UNWRITTEN)).after
    assert done is not None and not done.waits
    later = apply(done, TellLater()).after
    assert later is not None and later.waits
    assert apply(later, TellLater()) == Transition(None, Verdict.RECORDED)
    assert apply(apply(later, Told()).after, TellLater()) == Transition(None, Verdict.REPUBLISH)


def test_an_attempt_without_a_row_may_end_any_way_but_be_abandoned() -> None:
    assert apply(None, Finish(UNWRITTEN)).after == Step(State.DONE, 1)
    assert apply(None, Fail(UNWRITTEN, Effect.NONE)).after == Step(State.FAILED, 1)
    assert apply(None, AttemptFailed(UNWRITTEN, Effect.NONE)).after == Step(State.STARTED, 1)
    assert apply(None, Abandon(UNWRITTEN)).verdict is Verdict.LOST_RACE


def test_a_failed_step_gets_each_chance_once_and_none_that_was_fenced() -> None:
    failed = Step(State.FAILED, 2, "one", LEASE, acts=True, effect=Effect.UNKNOWN)
    again = apply(failed, Retry(2)).after
    assert again is not None and (again.state, again.generation, again.attempt) == (State.STARTED, 2, 2)
    assert (again.lease_until_ms, again.may_act_until_ms) == (0, LEASE), "what may be alive keeps an undo waiting"
    assert apply(again, Retry(2)) == Transition(None, Verdict.RECORDED), "told twice"
    failed_again = replace(again, state=State.FAILED)
    assert apply(failed_again, Retry(2)) == Transition(None, Verdict.REJOURNAL_FAILURE)
    fenced = apply(failed_again, Fence(3)).after
    assert fenced is not None and apply(fenced, Retry(3)) == Transition(None, Verdict.REJOURNAL_FAILURE)
    assert apply(fenced, Retry(4)).verdict is Verdict.RECORDED
    assert apply(again, begin(LEASE)) == Transition(None, Verdict.WAIT, LEASE + SKEW), "and so do the next attempt"
    begun = apply(again, begin(LEASE + SKEW)).after
    assert begun is not None and (begun.attempt, begun.generation) == (3, 2)
    done = apply(begun, Finish(3)).after
    assert done is not None and (done.generation, done.may_act_until_ms) == (2, 0)


def test_an_attempt_that_a_fence_met_lets_go_of_its_lease_once_it_is_over() -> None:
    fenced = apply(started(), Fence()).after
    assert fenced is not None and apply(fenced, Compensate(50, SKEW)).verdict is Verdict.WAIT
    for other in (Abandon(1), Abandon(3), Abandon(2, over=False)):
        assert apply(fenced, other) == Transition(None, Verdict.REJOURNAL_ABANDONED)
    over = apply(fenced, Abandon(2)).after
    assert over is not None and apply(over, Compensate(50, SKEW)).verdict is Verdict.UNDO


def test_a_lease_has_passed_only_when_every_clock_within_the_bound_says_so() -> None:
    early = apply(started(), begin(LEASE + SKEW - 1, owner="two"))
    assert early == Transition(None, Verdict.WAIT, LEASE + SKEW)
    in_time = apply(started(), begin(LEASE + SKEW, owner="two")).after
    assert in_time is not None and (in_time.attempt, in_time.owner, in_time.effect) == (3, "two", Effect.UNKNOWN)


def test_an_instance_waits_for_its_own_earlier_attempt_too() -> None:
    assert apply(started(), begin(50)).verdict is Verdict.WAIT


def test_a_claim_whose_answer_was_lost_gets_its_attempt_again() -> None:
    first = apply(None, begin(0)).after
    assert apply(first, begin(0)) == Transition(None, Verdict.RUN)


def test_a_failed_attempt_that_is_told_twice_is_counted_once() -> None:
    once = apply(started(), AttemptFailed(2, Effect.NONE)).after
    assert once is not None and not once.leased and once.attempt == 2
    assert apply(once, AttemptFailed(2, Effect.NONE)) == Transition(None, Verdict.RECORDED)
    assert apply(once, Finish(2)).verdict is Verdict.LOST_RACE, "it was declared over"


def test_the_next_attempt_begins_at_once_after_one_that_is_over() -> None:
    over = apply(started(), AttemptFailed(2, Effect.NONE)).after
    again = apply(over, begin(10, owner="two"))
    assert again.verdict is Verdict.RUN and again.after is not None and again.after.attempt == 3


def test_the_dead_do_not_hold_leases() -> None:
    taken = apply(started(), begin(1, owner="two", death=Death.CERTAIN))
    assert taken.verdict is Verdict.RUN and taken.after is not None
    assert apply(apply(taken.after, Finish(3)).after, Compensate(2, SKEW)).verdict is Verdict.UNDO


def test_whoever_was_only_presumed_dead_may_act_until_its_lease_has_passed() -> None:
    presumed = begin(1, owner="two", death=Death.PRESUMED)
    for step, asked in ((started(), presumed), (started(acts=False), presumed), (started(), replace(presumed, acts=False))):
        assert apply(step, asked) == Transition(None, Verdict.WAIT, LEASE + SKEW)
    assert apply(started(), replace(presumed, now_ms=LEASE + SKEW)).verdict is Verdict.RUN
    fenced = apply(started(), Fence()).after
    assert apply(fenced, Compensate(1, SKEW, Death.PRESUMED)) == Transition(None, Verdict.WAIT, LEASE + SKEW)


def test_what_only_makes_events_is_taken_over_from_whoever_was_presumed_dead() -> None:
    taken = apply(started(acts=False), replace(begin(1, owner="two", death=Death.PRESUMED), acts=False)).after
    assert taken is not None and taken.owner == "two"
    assert apply(taken, Finish(2)).verdict is Verdict.LOST_RACE, "the zombie cannot finish"


def test_an_attempt_of_unknown_fate_is_not_repeated_where_that_is_forbidden() -> None:
    left = apply(started(), begin(LEASE + SKEW, owner="two", retries=False))
    assert left.verdict is Verdict.REJOURNAL_ABANDONED and left.after is not None
    assert left.after.state is State.ABANDONED and not left.after.leased and left.after.effect is Effect.UNKNOWN
    clean = apply(started(), AttemptFailed(2, Effect.NONE)).after
    assert apply(clean, begin(1, retries=False)).verdict is Verdict.RUN, "nothing was changed, so its fate is known"
    dirty = apply(started(), AttemptFailed(2, Effect.UNKNOWN)).after
    assert apply(dirty, begin(1, retries=False)).verdict is Verdict.REJOURNAL_ABANDONED


def test_a_later_attempt_cannot_claim_that_nothing_was_changed() -> None:
    taken = apply(started(), begin(LEASE + SKEW, owner="two")).after
    failed = apply(taken, Fail(3, Effect.NONE)).after
    assert failed is not None and failed.effect is Effect.UNKNOWN


def test_a_failure_that_may_still_be_alive_has_an_unknown_effect_and_keeps_its_lease() -> None:
    failed = apply(started(), Fail(2, Effect.NONE, over=False)).after
    assert failed is not None and failed.effect is Effect.UNKNOWN
    assert apply(failed, Compensate(50, SKEW)).verdict is Verdict.WAIT


def test_a_step_that_waits_for_its_retry_can_fail_for_good() -> None:
    waiting = apply(started(), AttemptFailed(2, Effect.NONE)).after
    failed = apply(waiting, Fail(2, Effect.NONE)).after
    assert failed is not None and (failed.state, failed.effect) == (State.FAILED, Effect.NONE)


def test_a_fence_finds_a_step_that_changed_nothing_as_if_it_had_never_begun() -> None:
    waiting = apply(started(), AttemptFailed(2, Effect.NONE)).after
    assert apply(waiting, Fence()).verdict is Verdict.ANSWER_FENCED
    without_effects = started(acts=False)
    fenced = apply(without_effects, Fence())
    assert fenced.verdict is Verdict.ANSWER_FENCED
    assert apply(fenced.after, Finish(2)) == Transition(None, Verdict.ANSWER_FENCED), "what still runs cannot finish"


@pytest.mark.parametrize("one", list(Effect))
@pytest.mark.parametrize("other", list(Effect))
def test_what_attempts_changed_adds_up(one: Effect, other: Effect) -> None:
    assert together(one, other) is together(other, one)
    assert (together(one, other) is Effect.NONE) == (one is other is Effect.NONE)


OWNERS = ("one", "two", "three")


@dataclass
class Attempt:
    """What really runs: it may act as long as its own clock has not reached its lease."""

    owner: str
    number: int
    lease_until: int
    alive: bool = True
    changed: bool = False


class World(RuleBasedStateMachine):
    """One step, three instances whose clocks differ by at most `SKEW`, everything at any time."""

    acts = True

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.step: Step | None = None
        self.attempts: list[Attempt] = []
        self.alive = dict.fromkeys(OWNERS, True)
        self.changed = False
        self.undone = False
        self.finished = 0
        self.outcomes: list[Step] = []

    def clock(self, owner: str) -> int:
        return self.now + {"one": 0, "two": SKEW, "three": SKEW // 2}[owner]

    def ask(self, asked: Input) -> Verdict:
        before, found = self.step, apply(self.step, asked)
        if found.after is not None:
            self.step = found.after
            if found.after.state.final and (before is None or before.state is not found.after.state):
                self.outcomes.append(found.after)
        return found.verdict

    def living(self, owner: str) -> list[Attempt]:
        return [each for each in self.attempts if each.alive and each.owner == owner and self.clock(owner) < each.lease_until]

    def death(self) -> Death:
        if self.step is None or not self.step.owner or self.alive[self.step.owner]:
            return Death.UNKNOWN
        return Death.CERTAIN

    @rule(by=st.integers(1, LEASE))
    def time_passes(self, by: int) -> None:
        self.now += by

    @rule(owner=st.sampled_from(OWNERS), retries=st.booleans(), presume=st.booleans())
    def begins(self, owner: str, retries: bool, presume: bool) -> None:
        if not self.alive[owner] or self.living(owner):
            return  # one instance works on one flow in order
        death = Death.PRESUMED if presume and self.step is not None and self.step.owner != owner else self.death()
        now = self.clock(owner)
        if self.ask(Begin(owner, now + LEASE, now, SKEW, self.acts, retries, death)) is Verdict.RUN:
            assert self.step is not None
            self.attempts.append(Attempt(owner, self.step.attempt, now + LEASE))

    @rule(owner=st.sampled_from(OWNERS))
    def acts_outside(self, owner: str) -> None:
        for attempt in self.living(owner):
            if self.acts:
                assert not self.undone, "I4: an effect after its own undo"
                assert self.step is not None and self.step.state is not State.DONE, "a call after the step was done"
                attempt.changed = self.changed = True

    @rule(owner=st.sampled_from(OWNERS))
    def finishes(self, owner: str) -> None:
        for attempt in self.living(owner):
            if self.acts and not attempt.changed:
                continue
            attempt.alive = False
            if self.ask(Finish(attempt.number)) is Verdict.RECORDED:
                self.finished += 1

    @rule(owner=st.sampled_from(OWNERS), for_good=st.booleans(), over=st.booleans(), certain=st.booleans())
    def fails(self, owner: str, for_good: bool, over: bool, certain: bool) -> None:
        for attempt in self.living(owner):
            effect = (Effect.APPLIED if certain else Effect.UNKNOWN) if attempt.changed else Effect.NONE
            attempt.alive = for_good and not over
            self.ask(Fail(attempt.number, effect, over) if for_good else AttemptFailed(attempt.number, effect))

    @rule(owner=st.sampled_from(OWNERS), over=st.booleans())
    def abandons(self, owner: str, over: bool) -> None:
        for attempt in self.living(owner):
            attempt.alive = not over
            self.ask(Abandon(attempt.number, over))

    @rule(owner=st.sampled_from(OWNERS))
    def dies(self, owner: str) -> None:
        self.alive[owner] = False
        for attempt in self.attempts:
            attempt.alive &= attempt.owner != owner

    @precondition(lambda self: not any(self.alive.values()))
    @rule()
    def all_start_again(self) -> None:
        """Under the same names, which is harder than it will be: an instance's name is new at each start."""
        if self.step is None or not self.step.leased:
            self.alive = dict.fromkeys(OWNERS, True)

    @rule()
    def is_fenced(self) -> None:
        verdict = self.ask(Fence())
        if verdict is Verdict.ANSWER_FENCED:
            assert not self.changed, "I6: it was answered that the step never ran"

    @rule(owner=st.sampled_from(OWNERS))
    def is_compensated(self, owner: str) -> None:
        verdict = self.ask(Compensate(self.clock(owner), SKEW, self.death()))
        if verdict is Verdict.UNDO:
            self.changed, self.undone = False, True
            assert self.ask(Compensated()) is Verdict.ANSWER_COMPENSATED

    @invariant()
    def an_outcome_stands(self) -> None:
        states = [each.state for each in self.outcomes]
        assert len(states) <= 2 and (len(states) < 2 or states[1] is State.COMPENSATED)
        assert self.finished <= 1

    @invariant()
    def no_effect_is_denied(self) -> None:
        if self.step is not None and self.step.state.final and self.step.effect is Effect.NONE:
            assert not self.changed or not self.acts

    @invariant()
    def what_is_done_was_done(self) -> None:
        if self.acts and self.step is not None and self.step.state is State.DONE:
            assert self.changed


class EffectFreeWorld(World):
    acts = False


QUICK = settings(max_examples=300, stateful_step_count=30, deadline=None, derandomize=True)
TestActingStep = World.TestCase
TestActingStep.settings = QUICK
TestEffectFreeStep = EffectFreeWorld.TestCase
TestEffectFreeStep.settings = QUICK
