"""What a handler may ask for beside its event, as a second parameter."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from maypole.bus.dependencies import Dependencies, Use
from maypole.bus.lease import Lease
from maypole.bus.memos import Memos
from maypole.schemas.identifiers import EventId, FlowId, StepId


class UndeclaredEffect(TypeError):
    """A step acts on the outside, and its subscription does not say so. Names the declaration that is missing."""


@dataclass(frozen=True, slots=True)
class Context:
    """The step in hand. Everything but `attempt` is the same when the step is repeated.

    `home` is a folder for the agent's own state; it belongs to this cluster and is made on first use.
    """

    agent: str
    flow_id: FlowId
    step_id: StepId
    event_id: EventId
    attempt: int
    business_key: str | None
    triggered_at_ms: int
    home: Path
    acts: bool
    """Whether the subscription says that it acts on the outside."""
    memos: Memos
    dependencies: Dependencies
    logger: logging.LoggerAdapter[logging.Logger]
    lease: Lease | None = None
    """How long this attempt may act; None: nobody else would."""

    @property
    def idempotency_key(self) -> str:
        """What outside services get, so that a repeated step is one request to them. Read it when you call them, each time.

        Raises `UndeclaredEffect`, and `LeaseOver` where this attempt stood still for so long that another one may have begun.
        """
        used = "context.idempotency_key"
        self._check_declared(used)
        self._check_lease(used)
        return self.step_id

    def once(self, name: str, fn: Callable[[], Any]) -> Any:
        """What `fn` answered the first time this step called it under this name; also after a crash.

        `fn` takes nothing and may be a coroutine function; its answer is something that JSON can hold. Await the result in
        a coroutine; in a plain function it is there at once. A crash right after `fn` repeats it: give whatever it calls
        `context.idempotency_key`. Raises `UndeclaredEffect`, and `LeaseOver` as the key does.
        """
        used = f"context.once({name!r}, ...)"
        self._check_declared(used)
        return self.memos.once(name, fn, partial(self._check_lease, used))

    def dependency(self, name: str, timeout_seconds: float | None = None) -> Use:
        """What goes on inside `async with context.dependency("openai"):` is watched by that dependency's breaker.

        In a plain function: `with`. While the breaker is open `Unavailable` is raised instead: let it pass, and the
        event waits until the dependency is back, without an attempt being counted. Whatever else leaves the block is a
        failure of the dependency, also taking longer than `timeout_seconds`.
        """
        return self.dependencies.use(name, self.step_id, timeout_seconds)

    def _check_lease(self, used: str) -> None:
        if self.lease is not None:
            self.lease.check(used)

    def _check_declared(self, used: str) -> None:
        if not self.acts:
            raise UndeclaredEffect(
                f"{used} is for a step that acts on the outside, and this subscription of {self.agent} declares no such effect. "
                "Say what it is: @handler.undo when it can be taken back, pivot=True when not, retriable=True after a pivot"
            )

    @property
    def triggered_at(self) -> datetime:
        """The broker's time of the event, in UTC: use it where the clock would make a repetition differ."""
        return datetime.fromtimestamp(self.triggered_at_ms / 1000, UTC)
