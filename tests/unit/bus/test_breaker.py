"""Five failures in a row of different steps open the breaker; a minute later one probe decides."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import FrozenInstanceError
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from maypole.bus import Reject
from maypole.bus.breaker import Breaker, Circuit, State, Transition

AWAY = ConnectionError("away")


def closed(**policy: float) -> Circuit:
    return Circuit(Breaker(**policy))  # type: ignore[arg-type]  # numbers only


def failing(circuit: Circuit, *keys: str, now: float = 0) -> Circuit:
    for key in keys:
        circuit = circuit.failed(key, AWAY, now).circuit
    return circuit


def opened(now: float = 0) -> Circuit:
    return failing(closed(), *"abcde", now=now)


def test_the_fifth_failure_in_a_row_opens_it_and_says_why() -> None:
    four = failing(closed(), *"abcd")
    assert four.state is State.CLOSED
    assert four.ask("x", 0).allowed
    told = four.failed("e", AWAY, 7)
    assert told.transition == Transition(State.OPEN, 7, "5 consecutive failures, the last: ConnectionError: away")
    assert told.circuit.state is State.OPEN


def test_a_success_resets_the_count() -> None:
    circuit = failing(closed(), *"abcd").succeeded("x", 0).circuit
    assert failing(circuit, *"efgh").state is State.CLOSED
    assert failing(circuit, *"efghi").state is State.OPEN


def test_one_poison_record_is_no_outage() -> None:
    circuit = failing(closed(), *["poison"] * 100)
    assert circuit.state is State.CLOSED
    assert failing(circuit, *"bcd").state is State.CLOSED
    assert failing(circuit, *"bcde").state is State.OPEN


def test_what_does_not_count_neither_opens_nor_resets() -> None:
    circuit = failing(closed(), *"abcd")
    for key in "efghi":
        told = circuit.failed(key, Reject("no such order"), 0)
        assert told == (circuit, None)
    assert failing(circuit, "j").state is State.OPEN


def test_while_it_is_open_nothing_passes_and_everybody_is_told_until_when() -> None:
    circuit = opened(now=100)
    answer = circuit.ask("x", 159.999)
    assert (answer.allowed, answer.again_at, answer.transition) == (False, 160, None)
    assert answer.circuit == circuit


def test_what_began_before_it_opened_neither_closes_it_nor_makes_it_longer() -> None:
    circuit = opened(now=100)
    for told in (circuit.succeeded("late", 130), circuit.failed("late", AWAY, 130), circuit.left("late")):
        assert told == (circuit, None)


def test_after_a_minute_one_probe_passes_and_no_second_one() -> None:
    answer = opened(now=100).ask("x", 160)
    assert answer.allowed
    assert answer.transition == Transition(State.HALF_OPEN, 160, "60 s have passed, one probe may find out")
    for key in "xy":
        second = answer.circuit.ask(key, 1000)
        assert (second.allowed, second.again_at, second.transition, second.circuit) == (False, None, None, answer.circuit)


def test_a_probe_that_succeeds_closes_it_with_nothing_left_of_before() -> None:
    told = opened().ask("x", 60).circuit.succeeded("x", 61)
    assert told == (closed(), Transition(State.CLOSED, 61, "the probe succeeded"))


def test_a_failed_probe_starts_the_time_again() -> None:
    told = opened(now=0).ask("x", 90).circuit.failed("x", AWAY, 95)
    assert told.transition == Transition(State.OPEN, 95, "the probe failed: ConnectionError: away")
    assert not told.circuit.ask("y", 154).allowed
    assert told.circuit.ask("y", 155).allowed


@pytest.mark.parametrize("how", ["left", "rejected"])
def test_a_probe_without_an_answer_is_followed_by_another_at_once(how: str) -> None:
    half = opened().ask("x", 60).circuit
    told = half.left("x") if how == "left" else half.failed("x", Reject("no"), 61)
    assert (told.circuit.state, told.transition) == (State.HALF_OPEN, None)
    assert told.circuit.ask("y", 61) == (told.circuit.ask("y", 61).circuit, True, None, None)
    assert told.circuit.ask("y", 61).circuit.succeeded("y", 62).circuit == closed()


def test_only_the_probe_speaks_while_it_is_half_open() -> None:
    half = opened().ask("x", 60).circuit
    for told in (half.succeeded("late", 61), half.failed("late", AWAY, 61), half.left("late")):
        assert told == (half, None)


def test_everything_is_settable() -> None:
    circuit = Circuit(Breaker(failures=1, open_seconds=2.5, counts=KeyError))
    assert circuit.failed("a", AWAY, 0).circuit == circuit
    told = circuit.failed("a", KeyError("k"), 0)
    assert told.circuit.probe_at == 2.5
    either = Breaker(counts=(KeyError, ConnectionError))
    assert either.counted(AWAY) and not either.counted(ValueError())
    assert Breaker(counts=lambda error: "away" in str(error)).counted(AWAY)
    assert Breaker(counts=Reject).counted(Reject("")), "whoever says what counts is taken at his word"


@pytest.mark.parametrize(
    "wrong", [{"failures": 0}, {"open_seconds": 0}, {"open_seconds": -1}, {"open_seconds": float("inf")}, {"open_seconds": float("nan")}]
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected failures >= 1"):
        Breaker(**wrong)  # type: ignore[arg-type]  # numbers only


def test_a_policy_is_a_value_that_can_be_declared() -> None:
    with pytest.raises(FrozenInstanceError):
        Breaker().failures = 3  # type: ignore[misc]
    assert Breaker() == Breaker()
    assert Breaker().declaration() == {"failures": 5, "open_seconds": 60.0, "counts": "is_outage", "fallback": {"do": "pause"}}
    assert Breaker(counts=(KeyError, OSError)).declaration()["counts"] == "KeyError, OSError"


# -- against what the words say, over whole histories ------------------------------------------------------------------


class Happening(NamedTuple):
    what: str
    key: str
    at: int


def meaning(history: Sequence[Happening], failures: int, open_seconds: int) -> tuple[State, str | None]:
    """State and probe after a history, read from the words: slowly, from the beginning, with nothing kept along the way."""
    for number, happening in enumerate(history):
        before = history[: number + 1]
        last_success = max((index for index, each in enumerate(before) if each.what == "succeeded"), default=-1)
        if len({each.key for each in before[last_success + 1 :] if each.what == "failed"}) >= failures:
            return _open(history[number + 1 :], happening.at, failures, open_seconds)
    return State.CLOSED, None


def _open(rest: Sequence[Happening], since: int, failures: int, open_seconds: int) -> tuple[State, str | None]:
    for number, happening in enumerate(rest):
        if happening.what == "ask" and happening.at - since >= open_seconds:
            return _probed(rest[number + 1 :], happening.key, failures, open_seconds)
    return State.OPEN, None


def _probed(rest: Sequence[Happening], probe: str | None, failures: int, open_seconds: int) -> tuple[State, str | None]:
    for number, (what, key, at) in enumerate(rest):
        after = rest[number + 1 :]
        if probe is None and what == "ask":
            return _probed(after, key, failures, open_seconds)
        if key != probe or what == "ask":
            continue
        if what == "succeeded":
            return meaning(after, failures, open_seconds)
        if what == "failed":
            return _open(after, at, failures, open_seconds)
        return _probed(after, None, failures, open_seconds)
    return State.HALF_OPEN, probe


def played(history: Sequence[Happening], failures: int, open_seconds: int) -> Circuit:
    circuit = closed(failures=failures, open_seconds=open_seconds)
    for what, key, at in history:
        match what:
            case "ask":
                circuit = circuit.ask(key, at).circuit
            case "succeeded":
                circuit = circuit.succeeded(key, at).circuit
            case "failed":
                circuit = circuit.failed(key, AWAY, at).circuit
            case "refused":
                circuit = circuit.failed(key, Reject("no"), at).circuit
            case "left":
                circuit = circuit.left(key).circuit
    return circuit


def every_history(length: int) -> Iterator[list[Happening]]:
    """All of this length over two keys, one tick apart, in which some time may pass twice as fast."""
    whats = [(what, key) for what in ("ask", "succeeded", "failed", "left") for key in "ab"]
    for chosen in itertools.product(whats, repeat=length):
        yield [Happening(what, key, at) for at, (what, key) in enumerate(chosen)]


@pytest.mark.parametrize("open_seconds", [1, 2])
def test_every_short_history_means_what_the_words_say(open_seconds: int) -> None:
    for history in every_history(5):
        circuit = played(history, 2, open_seconds)
        assert (circuit.state, circuit.probe) == meaning(history, 2, open_seconds), history


happenings = st.lists(
    st.tuples(
        st.sampled_from(["ask", "succeeded", "failed", "failed", "failed", "refused", "left"]),
        st.sampled_from("abcdefg"),
        st.integers(0, 40),
    ),
    max_size=60,
)


@given(happenings, st.integers(1, 5))
@settings(max_examples=300)
def test_long_histories_do_too(steps: list[tuple[str, str, int]], failures: int) -> None:
    clock = itertools.accumulate(pause for _, _, pause in steps)
    history = [Happening(what, key, at) for (what, key, _), at in zip(steps, clock, strict=True)]
    circuit = played(history, failures, 60)
    assert (circuit.state, circuit.probe) == meaning(history, failures, 60)


class WellBehaved(RuleBasedStateMachine):
    """Whoever asks first and tells the outcome: what then holds for an outage and for those who wait through it."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = closed()
        self.now = 0.0
        self.under_way: list[str] = []
        self.begun = 0
        self.passed_since_opening = 0
        self.states = [State.CLOSED]

    def take(self, circuit: Circuit, transition: Transition | None) -> None:
        assert (transition is None) == (circuit.state is self.circuit.state), "every change of state is told, and nothing else"
        self.circuit = circuit
        if transition is not None:
            assert transition.state is circuit.state and transition.at == self.now and transition.because
            self.states.append(transition.state)
            if transition.state is State.OPEN:
                self.passed_since_opening = 0

    @rule(seconds=st.sampled_from([0.0, 1.0, 59.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        key = f"step {self.begun}"
        self.begun += 1
        before = self.circuit
        circuit, allowed, again_at, transition = before.ask(key, self.now)
        self.take(circuit, transition)
        assert again_at is None or again_at > self.now
        if allowed:
            self.under_way.append(key)
            if circuit.state is not State.CLOSED:
                assert before.state is State.HALF_OPEN or self.now >= before.probe_at
                self.passed_since_opening += 1
        else:
            assert before.state is not State.CLOSED
            assert before.state is State.HALF_OPEN or self.now < before.probe_at

    @precondition(lambda self: self.under_way)
    @rule(which=st.randoms(use_true_random=False), how=st.sampled_from(["succeeded", "failed", "failed", "failed", "left"]))
    def end(self, which: object, how: str) -> None:
        key = self.under_way.pop(which.randrange(len(self.under_way)))  # type: ignore[attr-defined]
        was_probe = key == self.circuit.probe
        match how:
            case "succeeded":
                told = self.circuit.succeeded(key, self.now)
            case "failed":
                told = self.circuit.failed(key, AWAY, self.now)
            case _:
                told = self.circuit.left(key)
                self.passed_since_opening -= was_probe
        self.take(*told)

    @invariant()
    def an_outage_is_met_by_one_probe_at_a_time(self) -> None:
        if self.circuit.state is not State.CLOSED:
            assert self.passed_since_opening <= 1
        if self.circuit.state is State.HALF_OPEN and self.circuit.probe is not None:
            assert self.circuit.probe in self.under_way

    @invariant()
    def states_follow_each_other_as_drawn(self) -> None:
        may_follow = {
            State.CLOSED: {State.OPEN},
            State.OPEN: {State.HALF_OPEN},
            State.HALF_OPEN: {State.OPEN, State.CLOSED},
        }
        assert all(after in may_follow[before] for before, after in itertools.pairwise(self.states))

    @invariant()
    def it_never_keeps_more_than_it_needs(self) -> None:
        assert len(self.circuit.failing) < self.circuit.breaker.failures

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        if self.circuit.state is State.OPEN:
            assert self.circuit.ask("patient", self.circuit.probe_at).allowed


TestWellBehaved = WellBehaved.TestCase
TestWellBehaved.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
