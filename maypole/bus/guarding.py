"""The breakers of one agent at work: the gates before its handlers, its dependencies, and what operators are told of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final

from maypole.bus.alerts import Alerts
from maypole.bus.breaker import Breaker, State, Transition
from maypole.bus.dependencies import Dependencies
from maypole.bus.gate import Gate
from maypole.bus.hook import Processing
from maypole.bus.pausing import Pausing
from maypole.bus.serving import Served
from maypole.bus.subscription import Subscription, by_topic
from maypole.bus.work import Work
from maypole.schemas.envelope import rfc3339

log = logging.getLogger("maypole.bus.guarding")

_EVENTS: Final = {State.OPEN: "breaker.opened", State.HALF_OPEN: "breaker.half_open", State.CLOSED: "breaker.closed"}

observed: ContextVar[Processing | None] = ContextVar("maypole.guarding.observed", default=None)
"""The delivery in hand, for breakers that move inside of its handler."""


class Guarding:
    """For one agent, on the running loop. Time is the loop's; `now`, in seconds since the epoch, is for people."""

    def __init__(
        self, agent: str, subscriptions: Sequence[Subscription], dependencies: Mapping[str, Breaker], now: Callable[[], float]
    ) -> None:
        self._agent = agent
        self._now = now
        loop = asyncio.get_running_loop()
        self.dependencies = Dependencies(loop.time, self._dependency_moved, dependencies)
        gates = {each.name: Gate(each, self.dependencies, loop.time, self._subscription_moved) for each in subscriptions}
        self.gates: Mapping[str, Gate] = {topic: gates[each.name] for topic, each in by_topic(subscriptions).items()}
        """By topic; those of a join share one."""
        self._alerts = Alerts(agent)
        self._pausing: Pausing | None = None
        self._asked = asyncio.Event()
        self._standing: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.troubled = False
        """Whether any gate may be shut. As long as none is, a step costs nothing here."""
        self.moved = asyncio.Event()
        """Set when there is something new in `standing`; whoever tells it clears it."""

    async def watch(self, pausing: Pausing) -> None:
        """Until cancelled: let those go on that may, whenever something may have changed, or the time of a breaker is over."""
        self._pausing = pausing
        try:
            while True:
                self._asked.clear()
                again_at = self._look(pausing)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(again_at):
                        await self._asked.wait()
        finally:
            self._alerts.close()

    @property
    def is_full(self) -> bool:
        """Whether so many wait that what could wait elsewhere should."""
        return self._pausing is not None and self._pausing.is_full

    @property
    def waiting(self) -> int:
        """Records that wait for a breaker to close, and those behind them in their flows."""
        return 0 if self._pausing is None else self._pausing.waiting

    def over(self, work: Work) -> None:
        """Nobody works on this any more, for now or for good."""
        gate = self.gates.get(work.delivery.topic)
        # Also of one that was to try and never asked: its partition was taken away, or its row said that nothing is left to do.
        waited_for = gate is not None and (gate.over(work.step) or gate.shut)
        if self.dependencies.over(work.step) or waited_for:
            self.look_soon()

    def look_soon(self) -> None:
        """Not at once: whoever asks has not finished what it does, and others may ask meanwhile."""
        self._asked.set()

    def _look(self, pausing: Pausing) -> float | None:
        gates = [gate for gate in dict.fromkeys(self.gates.values()) if gate.shut or pausing.of(gate.name)]
        times = [again_at for gate in gates if (again_at := gate.look(pausing)) is not None]
        self.troubled = any(gate.shut for gate in gates) or any(state is not State.CLOSED for state in self.dependencies.states().values())
        return min(times, default=None)

    def served(self, work: Work, served: Served) -> None:
        """The work goes on without its handler."""
        envelope = work.envelope
        flow = "" if envelope is None else envelope.flow_id
        about = {"agent": self._agent, "subscription": self.gates[work.delivery.topic].name, "flow_id": flow, "step_id": work.step}
        log.warning("step.degraded", extra={**about, "detail": served.detail})
        if served.alert is not None:
            self._alerts.call(served.alert, {**about, "because": served.detail}, self.gates[work.delivery.topic].blamed)

    def standing(self) -> Sequence[Mapping[str, Any]]:
        """Every breaker that is not closed, for the catalog."""
        return list(self._standing.values())

    def _subscription_moved(self, name: str, transition: Transition, processing: Processing | None) -> None:
        self._tell("subscription", name, transition, processing)

    def _dependency_moved(self, name: str, transition: Transition) -> None:
        self._tell("dependency", name, transition, observed.get())

    def undo_dependency_moved(self, name: str, transition: Transition) -> None:
        """Of what an undo needs: a breaker of its own, and as visible as the others."""
        self._tell("undo_dependency", name, transition, observed.get())

    def _tell(self, kind: str, name: str, transition: Transition, processing: Processing | None) -> None:
        state, because, breaker = transition.state, transition.because, f"{kind} {name}"
        level = logging.INFO if state is State.HALF_OPEN else logging.WARNING
        log.log(level, _EVENTS[state], extra={"agent": self._agent, kind: name, "because": because})
        if processing is not None:
            processing.breaker_moved(_EVENTS[state].removeprefix("breaker."), breaker, because)
        if state is State.CLOSED:
            self._standing.pop((kind, name), None)
            self._alerts.again(breaker)
        else:
            since = self._standing.get((kind, name), {}).get("since") or rfc3339(self._now() * 1000)
            self._standing[kind, name] = {"breaker": kind, "name": name, "state": state.value, "since": since, "because": because}
        self.troubled = True
        self.moved.set()
        self.look_soon()
