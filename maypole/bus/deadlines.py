"""The deadlines of an agent's handlers: one timer for all of them, set for the earliest, and not set when there is none."""

from __future__ import annotations

import asyncio
from math import inf


class Deadlines:
    """A timer rings once for a deadline that was met, too: to set it anew for each handler would cost more than all of them."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._guards: list[HandlerGuard] = []
        self._timer: asyncio.TimerHandle | None = None
        self.rings_at = inf

    def add(self, guard: HandlerGuard) -> None:
        self._guards.append(guard)

    def remove(self, guard: HandlerGuard) -> None:
        self._guards.remove(guard)

    def ring_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(when, self._ring)
        self.rings_at = when

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        rung, self.rings_at = self.rings_at, inf
        for guard in self._guards:
            if guard.due <= rung:
                guard.expire()
        earliest = min((guard.due for guard in self._guards), default=inf)
        if earliest < inf:
            self.ring_at(earliest)


class HandlerGuard:
    """Over the handler that one task runs, one at a time."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._loop = deadlines.loop
        self._expired = False
        self.task: asyncio.Task[None] | None = None
        self.due = inf
        deadlines.add(self)

    def arm(self, timeout_seconds: float) -> None:
        self._expired = False
        self.due = due = self._loop.time() + timeout_seconds
        if due < self._deadlines.rings_at:
            self._deadlines.ring_at(due)

    def disarm(self) -> bool:
        due, self.due = self.due, inf
        if self._expired:
            # The cancellation has been served, or the handler swallowed it.
            if self.task is not None:
                self.task.uncancel()
            return True
        # A handler that kept the loop to itself was over its time before anybody could say so.
        return self._loop.time() >= due

    def close(self) -> None:
        """Its task has ended."""
        self._deadlines.remove(self)

    def expire(self) -> None:
        self.due = inf
        if self.task is not None:
            self._expired = True
            self.task.cancel()
