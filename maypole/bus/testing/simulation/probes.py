"""What is seen of a run from outside, beside what lies on its topics: when handlers were called, and what they did out there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Final

from maypole.bus.context import Context
from maypole.bus.hook import Processing, Untraced
from maypole.bus.memory.remote import carried_out
from maypole.bus.ports import Delivery
from maypole.bus.testing.history_entries import Called, TakenBack, Tried
from maypole.bus.testing.simulation.story import Story
from maypole.schemas.envelope import Envelope

_REQUEST_SECONDS: Final = 0.001


class Outside:
    """The world that agents act on. `now` gives seconds since the epoch; `takes`, how long it is about an answer."""

    def __init__(self, now: Callable[[], float], takes: Callable[[str], float], story: Story) -> None:
        self.calls: list[Called] = []
        self.taken_back: list[TakenBack] = []
        self._last_ms = 0.0
        self._now = now
        self._takes = takes
        self._story = story

    async def call(self, agent: str, trigger: str, key: str) -> None:
        await self._asked(agent, lambda: self._act(agent, trigger, key))

    async def take_back(self, agent: str, trigger: str, key: str) -> None:
        await self._asked(agent, lambda: self._undo(agent, trigger, key))

    async def _asked(self, agent: str, act: Callable[[], None]) -> None:
        # On its way it is a moment only: one that comes hours after its sender's death, nobody can call back.
        await carried_out(_REQUEST_SECONDS, act)
        await asyncio.sleep(self._takes(f"an answer to {agent}"))

    def _act(self, agent: str, trigger: str, key: str) -> None:
        self._story.mark(f"{agent} acts because of {trigger} under {key}")
        self.calls.append(Called(self._next_ms(), agent, trigger, key))

    def _undo(self, agent: str, trigger: str, key: str) -> None:
        self._story.mark(f"{agent} takes back what {trigger} led to, under {key}")
        self.taken_back.append(TakenBack(self._next_ms(), agent, trigger, key))

    def _next_ms(self) -> float:
        """Two calls never have one time: the order in which they came must be told."""
        self._last_ms = max(self._now() * 1000, self._last_ms + 1e-3)
        return self._last_ms


OUTSIDE: Final[ContextVar[Outside | None]] = ContextVar("maypole_outside", default=None)


async def witness(context: Context) -> None:
    """Called by a handler in place of the outside service that it acts on: the simulation remembers it, and when.

    It takes a moment, and under bad luck longer; the request may arrive although whoever sent it has died meanwhile.
    Outside of a simulation nothing happens.
    """
    outside = OUTSIDE.get()
    if outside is not None:
        await outside.call(context.agent, context.event_id, context.idempotency_key)


async def take_back(context: Context) -> None:
    """The same for an undo: what the handler asked of the outside is gone, if it was there."""
    outside = OUTSIDE.get()
    if outside is not None:
        await outside.take_back(context.agent, context.event_id, context.idempotency_key)


class Probe(Untraced):
    """An observer that notes when a handler is called."""

    def __init__(self, now: Callable[[], float], story: Story) -> None:
        self.tried: list[Tried] = []
        self._now = now
        self._story = story

    def processing(
        self, agent: str, delivery: Delivery, envelope: Envelope, step_id: str, queued_ms: float, beside: Sequence[str] = ()
    ) -> Processing:
        inner = super().processing(agent, delivery, envelope, step_id, queued_ms, beside)
        return _Probing(inner, lambda: self._handling(agent, envelope.event_id, step_id))

    @contextmanager
    def _handling(self, agent: str, event_id: str, step_id: str) -> Iterator[None]:
        self._story.mark(f"{agent} handles {event_id}")
        self.tried.append(Tried(self._now() * 1000, agent, event_id, step_id))
        yield


class _Probing:
    """What it observes by itself, and all else that the observer within it does."""

    def __init__(self, inner: Processing, handling: Callable[[], AbstractContextManager[None]]) -> None:
        self.traceparent = inner.traceparent
        self.tracestate = inner.tracestate
        self.sending = inner.sending
        self.attempt_failed = inner.attempt_failed
        self.held = inner.held
        self.breaker_moved = inner.breaker_moved
        self.ended = inner.ended
        self.handling = handling
