"""An event loop on which several processes live in virtual time, each of which can be stopped between any two of its steps.

There is no outside: no sockets, no threads, no clock. The loop runs what is ready in the order in which it became ready, and when
nothing is, time jumps to the next timer. So a program takes the same steps in every run, and an hour of waiting costs nothing.

What belongs to a process is known by its context: every task, timer and callback that begins in a process inherits it.
A process that stands still, or is dead, takes no step at all: no `finally`, no `except CancelledError`, as with SIGSTOP and
SIGKILL. Whatever it would have done next is kept, in order, until it goes on or is buried.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from enum import Enum
from typing import Any, Final

_ROUNDS_MAX: Final = 5_000_000


class Stalled(RuntimeError):
    """Nothing can ever happen again, and somebody still waits; or there is no end of what happens."""


class Condition(Enum):
    RUNNING = "running"
    STOPPED = "stopped"
    DEAD = "dead"


class Process:
    """What runs in one context of a `SimulatedLoop`. A step is what happens between two awaits."""

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        self.name = name
        self.condition = Condition.RUNNING
        self.steps = 0
        self._interrupt_at = 0
        self._interrupt: Callable[[], None] | None = None
        self._loop = loop
        self._kept: list[asyncio.Handle] = []

    def spawn(self, main: Coroutine[Any, Any, Any], within: Context) -> asyncio.Task[Any]:
        """Begin the process with this task; all that comes of it belongs to the process."""
        context = within.copy()
        context.run(CURRENT.set, self)
        return self._loop.create_task(main, name=self.name, context=context)

    def interrupt_after(self, steps: int, call: Callable[[], None]) -> None:
        """Have it called, once, before so many more steps are taken; it may stop or kill the process."""
        self._interrupt_at, self._interrupt = self.steps + max(1, steps), call

    def spare(self) -> None:
        """Nothing that was to befall it does."""
        self._interrupt = None

    def stop(self) -> None:
        if self.condition is Condition.RUNNING:
            self.condition = Condition.STOPPED

    def go_on(self) -> None:
        """What was to happen meanwhile happens now, in the order in which it would have."""
        if self.condition is Condition.STOPPED:
            self._run_again()

    def kill(self) -> None:
        """It never takes another step. Idempotent."""
        self.condition = Condition.DEAD
        self._kept += self._loop.take_timers(self)

    def bury(self) -> list[asyncio.Task[Any]]:
        """After the run: let what is left of it come to its end, so that nothing is torn off. Returns its tasks, cancelled."""
        self.spare()
        self._run_again()
        tasks = [task for task, process in self._loop.tasks if process is self and not task.done()]
        for task in tasks:
            task.cancel()
        return tasks

    def may_step(self, handle: asyncio.Handle) -> bool:
        """Asked by the loop before each step; one that may not be taken is kept."""
        if self.condition is Condition.RUNNING:
            self.steps += 1
            if self.steps != self._interrupt_at or self._interrupt is None:
                return True
            self._interrupt()
            if self.condition is Condition.RUNNING:
                return True
        self._kept.append(handle)
        return False

    def _run_again(self) -> None:
        self.condition = Condition.RUNNING
        kept, self._kept = self._kept, []
        self._loop.run_again(kept)


CURRENT: Final[ContextVar[Process | None]] = ContextVar("maypole_simulated_process", default=None)


class SimulatedLoop(asyncio.BaseEventLoop):
    """`elapsed` is virtual seconds since its beginning. Plain functions given to `run_in_executor` run at once, inside the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0
        self.tasks: list[tuple[asyncio.Task[Any], Process | None]] = []
        """All, with whose they are. Also those of the dead: a coroutine that is thrown away would run its `finally` blocks."""
        self.errors: list[dict[str, Any]] = []
        """What nobody was there to catch."""
        self._cancelled_timers = 0
        self._rounds = 0
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self.elapsed

    def run_again(self, handles: list[asyncio.Handle]) -> None:
        self._queue().extend(handles)

    def take_timers(self, process: Process) -> list[asyncio.Handle]:
        """What was set to ring in a process, the earliest first; it rings no more."""
        timers = self._timers()
        mine = [timer for timer in timers if timer._context.get(CURRENT) is process]
        timers[:] = [timer for timer in timers if timer._context.get(CURRENT) is not process]
        heapq.heapify(timers)
        for timer in mine:
            timer._scheduled = False
        return sorted(mine, key=lambda timer: timer.when())

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # as base does
        """In a step of its own, so that a process can die before and after it."""
        answer: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            if answer.cancelled():
                return
            try:
                answer.set_result(func(*args))
            except Exception as error:  # noqa: BLE001 - told to whoever awaits it
                answer.set_exception(error)

        self.call_soon(work)
        return answer

    # What `BaseEventLoop` leaves to its kinds.

    def _run_once(self) -> None:
        self._rounds += 1
        if self._rounds > _ROUNDS_MAX:
            raise Stalled(f"not at an end after {_ROUNDS_MAX} rounds of the loop, {self.elapsed:.3f} virtual seconds after its beginning")
        ready, timers = self._queue(), self._timers()
        while timers and (timers[0]._cancelled or (not ready and timers[0]._when > self.elapsed)):
            if timers[0]._cancelled:
                heapq.heappop(timers)._scheduled = False
            else:
                self.elapsed = timers[0]._when
        while timers and timers[0]._when <= self.elapsed:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            if not timer._cancelled:
                ready.append(timer)
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            raise Stalled("nothing is ready to run and no timer is set: whoever still waits would wait for ever")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(CURRENT)
            if process is None or process.may_step(handle):
                handle._run()

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _timer_handle_cancelled(self, handle: Any) -> None:
        """Cancelled timers go when their time comes; of those that are cancelled early, some hundred may be left."""
        self._cancelled_timers += 1
        timers = self._timers()
        if self._cancelled_timers > 200 and self._cancelled_timers * 2 > len(timers):
            self._cancelled_timers = 0
            timers[:] = [timer for timer in timers if not timer._cancelled]
            heapq.heapify(timers)

    def _queue(self) -> Any:
        return self._ready  # type: ignore[attr-defined]

    def _timers(self) -> Any:
        return self._scheduled  # type: ignore[attr-defined]

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = _Task(coro, len(self.tasks), loop=loop, **options)
        context = options.get("context")
        self.tasks.append((task, CURRENT.get() if context is None else context.get(CURRENT)))
        return task


class _Task(asyncio.Task[Any]):
    """Tasks are kept in sets, whose order follows from hashes: an address in memory would be another one in every run."""

    def __init__(self, coro: Any, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number
