"""Virtual time for the running event loop: sleeping costs nothing, and the same program takes the same steps.

While it lasts, `loop.time()` stands still as long as anything is ready to run or a thread of an executor works, and
jumps to the next timer when nothing is. So `asyncio.sleep`, timeouts and timers in anybody's code end at once, in the
order they would have ended in. Threads that were not started through `run_in_executor` are not waited for.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from maypole.bus.memory.virtual_threads import PATIENCE_SECONDS_DEFAULT, VirtualThreads

EPOCH = 1_767_225_600.0
"""2026-01-01T00:00:00Z, in seconds: where virtual clocks begin unless told otherwise."""


class VirtualClock:
    """`elapsed` counts seconds from zero; `now` is the same on the calendar."""

    def __init__(self, epoch: float) -> None:
        self._epoch = epoch
        self.elapsed = 0.0

    def now(self) -> float:
        """Seconds since the epoch of Unix, as `time.time` gives them."""
        return self._epoch + self.elapsed


@asynccontextmanager
async def virtual_time(epoch: float = EPOCH, *, patience_seconds: float = PATIENCE_SECONDS_DEFAULT) -> AsyncIterator[VirtualClock]:
    """Make the running loop's time virtual until the block is left; timers that were set before move along with it.

    `patience_seconds`, real ones, is how long the answer of a thread waits for those of threads that were started before.
    Raises `TypeError` on a loop that is not asyncio's own selector loop, and `RuntimeError` when time is virtual already.
    """
    running = asyncio.get_running_loop()
    if not isinstance(running, asyncio.SelectorEventLoop):
        raise TypeError(f"virtual time needs asyncio's selector event loop, found {type(running).__name__}")
    loop: Any = running
    if isinstance(loop._selector, _JumpingSelector):
        raise RuntimeError("time is virtual already: virtual_time does not nest")
    clock = VirtualClock(epoch)
    threads = VirtualThreads(loop)
    selector = _JumpingSelector(loop._selector, clock, threads, patience_seconds, loop)
    started, resolution = loop.time(), loop._clock_resolution
    _shift_timers(loop, -started)
    loop._selector = selector
    loop.time = lambda: clock.elapsed
    loop.run_in_executor = threads.run
    selector.jump(0.0)
    try:
        yield clock
    finally:
        del loop.time
        del loop.run_in_executor
        threads.release()
        loop._selector = selector.inner
        loop._clock_resolution = resolution
        # What is still set to ring keeps its distance from now.
        _shift_timers(loop, loop.time() - clock.elapsed)


class _JumpingSelector:
    """Stands where the loop would sleep. Everything else is the real selector's."""

    def __init__(self, inner: selectors.BaseSelector, clock: VirtualClock, threads: VirtualThreads, patience: float, loop: Any) -> None:
        self.inner = inner
        self._clock = clock
        self._threads = threads
        self._patience = patience
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return self.inner.select(0)
        if self._threads:
            # A thread that works takes no time here: only what it answers, and the world outside, can go on.
            if self._threads.deliver_next():
                return []
            events = self.inner.select(self._patience)
            if not events:
                self._threads.deliver_any()
            return events
        if timeout is None:
            return self.inner.select(None)
        events = self.inner.select(0)
        if not events:
            self.jump(timeout)
        return events

    def jump(self, seconds: float) -> None:
        self._clock.elapsed += seconds
        # The loop rings timers that are due within its clock's resolution. Real time moves on by itself; here a timer
        # that rings a nanosecond early would find that it is not due, set itself again, and ring again for ever.
        self._loop._clock_resolution = math.ulp(self._clock.elapsed)


def _shift_timers(loop: Any, seconds: float) -> None:
    for handle in loop._scheduled:
        handle._when += seconds
