"""Virtual time for the running event loop: sleeping costs nothing, and the same program takes the same steps.

While it lasts, `loop.time()` stands still as long as anything is ready to run or a thread of an executor works, and
jumps to the next timer when nothing is. So `asyncio.sleep`, timeouts and timers in anybody's code end at once, in the
order they would have ended in. Threads that were not started through `run_in_executor` are not waited for.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

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
async def virtual_time(epoch: float = EPOCH) -> AsyncIterator[VirtualClock]:
    """Make the running loop's time virtual until the block is left; timers that were set before move along with it.

    Raises `TypeError` on a loop that is not asyncio's own selector loop, and `RuntimeError` when time is virtual already.
    """
    running = asyncio.get_running_loop()
    if not isinstance(running, asyncio.SelectorEventLoop):
        raise TypeError(f"virtual time needs asyncio's selector event loop, found {type(running).__name__}")
    loop: Any = running
    if isinstance(loop._selector, _JumpingSelector):
        raise RuntimeError("time is virtual already: virtual_time does not nest")
    clock = VirtualClock(epoch)
    selector = _JumpingSelector(loop._selector, clock)
    started = loop.time()
    _shift_timers(loop, -started)
    loop._selector = selector
    loop.time = lambda: clock.elapsed
    loop.run_in_executor = _counting(loop, selector)
    try:
        yield clock
    finally:
        del loop.time
        del loop.run_in_executor
        loop._selector = selector.inner
        # What is still set to ring keeps its distance from now.
        _shift_timers(loop, loop.time() - clock.elapsed)


class _JumpingSelector:
    """Stands where the loop would sleep. Everything else is the real selector's."""

    def __init__(self, inner: selectors.BaseSelector, clock: VirtualClock) -> None:
        self.inner = inner
        self.working = 0
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return self.inner.select(0)
        if timeout is None or self.working:
            # Only the world outside can go on: a thread that works takes no time here.
            return self.inner.select(None)
        events = self.inner.select(0)
        if not events:
            self._clock.elapsed += timeout
        return events


def _counting(loop: Any, selector: _JumpingSelector) -> Callable[..., asyncio.Future[Any]]:
    def done() -> None:
        selector.working -= 1

    def run_in_executor(executor: Executor | None, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        if executor is None:
            executor = loop._default_executor
            if executor is None:
                executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
                loop.set_default_executor(executor)
        work = executor.submit(function, *arguments)
        selector.working += 1
        answer = asyncio.wrap_future(work, loop=loop)
        # After `wrap_future`, so that the answer is on its way before time may move again.
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(done))
        return answer

    return run_in_executor


def _shift_timers(loop: Any, seconds: float) -> None:
    for handle in loop._scheduled:
        handle._when += seconds
