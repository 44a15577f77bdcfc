"""A circuit breaker as a value: what is told to it makes the next one. No clock inside, no waiting, nothing to lock.

Source: "Circuit Breaker" in Michael Nygard, *Release It!* (2007); counted are consecutive failures of different keys, because
an outage fails everybody and a poison record fails alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

from maypole.bus.fallbacks import Fallback, Pause
from maypole.bus.outage import is_outage

FAILURES_DEFAULT: Final = 5
OPEN_SECONDS_DEFAULT: Final = 60.0

Counts = Callable[[BaseException], bool] | type[BaseException] | tuple[type[BaseException], ...]


class State(StrEnum):
    CLOSED = "closed"
    """Everything passes."""
    OPEN = "open"
    """Nothing passes until the time is over."""
    HALF_OPEN = "half_open"
    """One probe is under way, or may begin; the others wait for what becomes of it."""


class Transition(NamedTuple):
    """What operators are told. `at` in the seconds that the breaker was told, `because` in words."""

    state: State
    at: float
    because: str


@dataclass(frozen=True, slots=True)
class Breaker:
    """When to open and for how long. `counts` are the exceptions that speak of an outage, or a predicate that tells.

    By default that is every exception but those that say that the event is wrong, or that we ask too often: see `is_outage`.
    """

    failures: int = FAILURES_DEFAULT
    open_seconds: float = OPEN_SECONDS_DEFAULT
    counts: Counts = is_outage
    fallback: Fallback = field(default_factory=Pause)

    def __post_init__(self) -> None:
        if self.failures < 1 or not 0 < self.open_seconds < math.inf:
            raise ValueError(f"expected failures >= 1 and finite open_seconds > 0, found {self.failures} and {self.open_seconds}")

    def counted(self, error: BaseException) -> bool:
        if isinstance(self.counts, (type, tuple)):
            return isinstance(error, self.counts)
        return self.counts(error)

    def declaration(self) -> dict[str, Any]:
        return {
            "failures": self.failures,
            "open_seconds": self.open_seconds,
            "counts": ", ".join(each.__name__ for each in _named(self.counts)),
            "fallback": self.fallback.declaration(),
        }


class Answer(NamedTuple):
    """Whether an attempt may begin. `again_at` is when asking again may help: None means after the next transition."""

    circuit: Circuit
    allowed: bool
    again_at: float | None = None
    transition: Transition | None = None


class Told(NamedTuple):
    circuit: Circuit
    transition: Transition | None = None


@dataclass(frozen=True, slots=True)
class Circuit:
    """Where a breaker stands. Ask before every attempt, and tell what became of each that was allowed.

    A key names what is attempted, over all its attempts: a step's id. Times are seconds of any clock that never goes back.
    """

    breaker: Breaker
    state: State = State.CLOSED
    opened_at: float = -math.inf
    failing: frozenset[str] = frozenset()
    """Keys that failed since the last success. Never more than it takes to open."""
    probe: str | None = None

    @property
    def probe_at(self) -> float:
        """When it is open: the time from which a probe may begin."""
        return self.opened_at + self.breaker.open_seconds

    def ask(self, key: str, now: float) -> Answer:
        """May an attempt at `key` begin?"""
        match self.state:
            case State.CLOSED:
                return Answer(self, True)
            case State.OPEN if now < self.probe_at:
                return Answer(self, False, self.probe_at)
            case State.OPEN:
                why = f"{self.breaker.open_seconds:g} s have passed, one probe may find out"
                return Answer(replace(self, state=State.HALF_OPEN, probe=key), True, None, Transition(State.HALF_OPEN, now, why))
            case State.HALF_OPEN if self.probe is None:
                return Answer(replace(self, probe=key), True)
        # The probe's own key may not begin twice either: one probe is one attempt.
        return Answer(self, False)

    def succeeded(self, key: str, now: float) -> Told:
        """An attempt that was allowed came to its end."""
        if self.state is State.CLOSED:
            return Told(replace(self, failing=frozenset()) if self.failing else self)
        if self.state is State.HALF_OPEN and self.probe == key:
            return Told(Circuit(self.breaker), Transition(State.CLOSED, now, "the probe succeeded"))
        return Told(self)  # it began before the breaker opened, and says nothing of now

    def failed(self, key: str, error: BaseException, now: float) -> Told:
        """An attempt that was allowed failed. What does not count changes nothing, and leaves the probe to somebody else."""
        if not self.breaker.counted(error):
            return self.left(key)
        told = f"{type(error).__name__}: {error}"
        if self.state is State.CLOSED:
            failing = self.failing | {key}
            if len(failing) < self.breaker.failures:
                return Told(replace(self, failing=failing))
            return self._opened(now, f"{len(failing)} consecutive failures, the last: {told}")
        if self.state is State.HALF_OPEN and self.probe == key:
            return self._opened(now, f"the probe failed: {told}")
        return Told(self)  # as above

    def left(self, key: str) -> Told:
        """An attempt that was allowed ended without an answer: cancelled, taken away, never begun. Another may be the probe."""
        return Told(replace(self, probe=None) if self.state is State.HALF_OPEN and self.probe == key else self)

    def _opened(self, now: float, because: str) -> Told:
        return Told(Circuit(self.breaker, State.OPEN, opened_at=now), Transition(State.OPEN, now, because))


def _named(counts: Counts) -> tuple[Any, ...]:
    return counts if isinstance(counts, tuple) else (counts,)
