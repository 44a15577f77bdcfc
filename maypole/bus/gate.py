"""The way into one subscription's handler: its breaker, and the dependencies that have refused it.

While it is shut nothing goes in but one attempt at a time that may find out whether the outage is over. Whoever makes
it should not always be the same record, or one that can never succeed would keep the gate shut for ever: so those that
have not tried yet go first, and when none is left some more are fetched.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Final

from maypole.bus.breaker import Circuit, State, Told, Transition
from maypole.bus.dependencies import Dependencies
from maypole.bus.fallbacks import Pause
from maypole.bus.hook import Processing
from maypole.bus.pausing import Pausing
from maypole.bus.serving import Served, Serving
from maypole.bus.subscription import Subscription
from maypole.bus.work import Work
from maypole.schemas.event import Event
from maypole.schemas.identifiers import StepId

log = logging.getLogger("maypole.bus.gate")

WAITING_BESIDE_SERVED_MAX: Final = 500
"""So many may wait in hand where the fallback serves some and lets others wait; then nothing more is fetched."""

Moved = Callable[[str, Transition, Processing | None], None]


class Gate:
    """Of one subscription."""

    __slots__ = (
        "_circuit", "_dependencies", "_moved", "_needs", "_now", "_passing", "_serving", "_topics", "_tried", "_trying",
        "because", "blamed", "listens", "name", "shut",
    )  # fmt: skip

    def __init__(self, subscription: Subscription, dependencies: Dependencies, now: Callable[[], float], moved: Moved) -> None:
        """`now` gives seconds of a clock that never goes back; `moved` is told of every transition of the breaker, and who caused it."""
        self.name = subscription.name
        self._topics = subscription.event_types
        self._dependencies = dependencies
        self._now = now
        self._moved = moved
        self._passing = subscription.retry.on
        breaker = subscription.breaker
        self._circuit = None if breaker is None else Circuit(breaker)
        self._serving = Serving(Pause() if breaker is None else breaker.fallback)
        self._needs: set[str] = set()
        self._trying: StepId | None = None
        self._tried: set[str] = set()
        self.shut = False
        """False as long as everything may pass, which is what a step asks first."""
        self.listens = self._serving.caches
        """Whether a success changes anything: nearly never."""
        self.because = ""
        self.blamed = ""
        """The breaker that keeps its steps out, as operators are told of it: its own, or a dependency's."""

    def holds(self, work: Work) -> bool:
        """Whether it would have to wait before its handler is called; nothing is changed by asking."""
        return self.shut and not self._serving.serves and not _is_over(work) and not self._passes(work.step)

    def ask(self, work: Work) -> bool:
        """Whether an attempt at this step may begin. If so, tell what became of it, or that it is over."""
        if not self.shut or _is_over(work):
            return True
        step = work.step
        if not self._passes(step):
            return False
        if self._circuit is not None:
            answer = self._circuit.ask(step, self._now())
            self._take(Told(answer.circuit, answer.transition), work)
        self._trying = step
        self._tried.add(step)
        return True

    def succeeded(self, work: Work, emitted: Sequence[Event]) -> None:
        if self._serving.caches and work.envelope is not None:
            self._serving.remember(work.envelope.business_key, emitted, self._now())
        if self._circuit is not None and (self._circuit.failing or self.shut):
            self._take(self._circuit.succeeded(work.step, self._now()), work)

    def failed(self, work: Work, error: BaseException) -> bool:
        """Whether an outage answers for this failure, and not the record: the attempt does not count."""
        step = work.step
        dependency = self._dependencies.answers_for(step, error)
        if dependency is not None:
            self.over(step)
            self.because, self.blamed = f"{dependency} is away: {error}", f"dependency {dependency}"
            if not self._serving.serves:
                self._needs.add(dependency)
                self.shut = True
            return True
        if self._circuit is None or not self._counts(self._circuit, error):
            return False
        failing = self._circuit.failing
        self._take(self._circuit.failed(step, error, self._now()), work)
        if self._circuit.state is State.CLOSED:
            return False
        self._tried.update((step, *failing))
        return True

    def over(self, step: StepId) -> bool:
        """An attempt ended, whether or not anybody could tell how; True if somebody else may try now."""
        if self._trying != step:
            return False
        if self._circuit is not None:
            self._circuit = self._circuit.left(step).circuit
        self._trying = None
        return True

    def serve(self, work: Work) -> Served | None:
        """What the step leads to without its handler; None: it waits."""
        envelope = work.envelope
        return self._serving.serve(None if envelope is None else envelope.business_key, self.because, self._now())

    def look(self, pausing: Pausing) -> float | None:
        """Let those go on that may, and fetch as much as is good. Answers when to look again, at the latest."""
        now = self._now()
        self._needs = {name for name in self._needs if self._dependencies.circuit(name).state is not State.CLOSED}
        shut = self._open_circuits()
        self.shut = bool(shut)
        waiting = pausing.of(self.name)
        if not shut:
            self._trying = None
            self._tried.clear()
            pausing.resume(self.name)
            pausing.wake(self.name, list(waiting))
            return None
        again_at = max((circuit.probe_at for circuit in shut if circuit.state is State.OPEN), default=-math.inf)
        busy = self._trying is not None or any(circuit.probe is not None for circuit in shut)
        due = now >= again_at and not busy
        fresh = [work for work in waiting if work.step not in self._tried]
        served_enough, tried_enough = len(waiting) >= WAITING_BESIDE_SERVED_MAX, busy or bool(fresh) or not (waiting or due)
        enough = served_enough if self._serving.serves else tried_enough
        if enough:
            pausing.pause(self.name, self._topics)
        else:
            pausing.resume(self.name)
        if due and waiting:
            pausing.wake(self.name, (fresh or list(waiting))[:1])
        return again_at if now < again_at else None

    def seconds_left(self) -> float:
        """Until it may be worth asking again."""
        return max((circuit.probe_at - self._now() for circuit in self._open_circuits()), default=0.0)

    def _counts(self, circuit: Circuit, error: BaseException) -> bool:
        # What cannot pass by itself is no outage: another attempt would not be made either.
        if not isinstance(error, self._passing):
            return False
        try:
            return circuit.breaker.counted(error)
        except Exception as fault:  # noqa: BLE001 - the user's predicate, the user's bug
            log.warning("breaker.counts_failed", extra={"subscription": self.name, "error": repr(fault), "about": repr(error)})
            return False

    def _open_circuits(self) -> list[Circuit]:
        return [circuit for circuit in self._circuits() if circuit.state is not State.CLOSED]

    def _circuits(self) -> list[Circuit]:
        own = [] if self._circuit is None else [self._circuit]
        return own + [self._dependencies.circuit(name) for name in self._needs]

    def _passes(self, step: StepId) -> bool:
        now = self._now()
        return self._trying in (None, step) and all(circuit.ask(step, now).allowed for circuit in self._circuits())

    def _take(self, told: Told, work: Work) -> None:
        self._circuit = circuit = told.circuit
        if told.transition is not None:
            if told.transition.state is State.OPEN:
                self.shut = True
                self.because, self.blamed = told.transition.because, f"subscription {self.name}"
            self._moved(self.name, told.transition, work.processing)
        self.listens = self._serving.caches or bool(circuit.failing) or circuit.state is not State.CLOSED


def _is_over(work: Work) -> bool:
    """What its row says is only told again: no handler is called."""
    return work.row is not None and work.row.step.state.final
