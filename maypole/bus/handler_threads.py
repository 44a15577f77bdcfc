"""Threads for handlers that are plain functions: one for each call under way, kept for the next.

A thread cannot be stopped from outside. When the time of its call is up it is *abandoned*: its answer is dropped, the
next call gets another thread, and nobody waits for it, not even the end of the process.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from enum import Enum
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from maypole.bus.attempt import Failed

log = logging.getLogger("maypole.bus.handler_threads")

ABANDONED_MAX: Final = 256
"""Each keeps its stack and whatever its handler holds. Beyond so many an agent is better off in a new process."""


class ThreadsExhausted(RuntimeError):
    """More calls of plain functions never returned than a process should bear."""


class HandlerThreads(Executor):
    """As an `Executor` it is what `run_in_executor` takes, so that virtual time knows of its work. Belongs to the loop."""

    def __init__(self, agent: str) -> None:
        self._agent = agent
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0
        self._abandoned: list[_Call] = []

    @property
    def abandoned(self) -> int:
        """Calls that nobody waits for and that have not returned."""
        self._abandoned = [call for call in self._abandoned if call.where is not None]
        return len(self._abandoned)

    async def call(self, about: Mapping[str, Any], function: Callable[..., object], *arguments: object) -> object | Failed:
        """What the function returned, or what it raised. `about` says for the log whose call it is.

        Raises `ThreadsExhausted` when `ABANDONED_MAX` earlier calls have not returned.
        """
        call = _Call(partial(contextvars.copy_context().run, function, *arguments))
        try:
            return await asyncio.get_running_loop().run_in_executor(self, call)
        except asyncio.CancelledError:
            if call.abandon():
                self._abandoned.append(call)
                log.warning("handler.thread_abandoned", extra={**about, "at": call.where, "abandoned": self.abandoned})
            raise

    def check(self) -> None:
        """Raises `ThreadsExhausted`."""
        if len(self._abandoned) >= ABANDONED_MAX and self.abandoned >= ABANDONED_MAX:
            places = ", ".join(sorted({str(call.where) for call in self._abandoned})[:3])
            raise ThreadsExhausted(
                f"agent {self._agent}: {self.abandoned} calls of its handlers outlived their timeouts and have not returned; they are at "
                f"{places}. Give what waits there a time limit of its own; a new process of the agent goes on where this one stopped"
            )

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._calls.put((future, partial(function, *arguments, **named)))
        if not self._idle.acquire(blocking=False):
            self._threads += 1
            # A daemon: the end of the process waits for every other kind, and for the threads of the standard library's pools.
            threading.Thread(target=self._work, name=f"maypole-handler-{self._agent}-{self._threads}", daemon=True).start()
        return future

    def close(self) -> None:
        """Let the threads go: those that have nothing to do at once, the others when their calls return."""
        for _ in range(self._threads):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:  # noqa: BLE001 - whoever waits for the future is told
                    future.set_exception(error)
            # What they hold must not live until the next call comes.
            del call, future, function
            self._idle.release()


class _State(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    UNWANTED = "unwanted"
    ENDED = "ended"


class _Call:
    """One call of a handler: what it raises is an answer too, because futures do not take every exception."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._state = _State.WAITING
        self._thread = 0

    def __call__(self) -> object | Failed:
        with self._lock:
            if self._state is not _State.WAITING:
                return None
            self._state, self._thread = _State.RUNNING, threading.get_ident()
        try:
            return self._function()
        except BaseException as error:  # noqa: BLE001 - `attempted` tells them apart
            return Failed(error)
        finally:
            with self._lock:
                self._state = _State.ENDED

    def abandon(self) -> bool:
        """Whether it runs all the same."""
        with self._lock:
            runs = self._state is _State.RUNNING
            if self._state is not _State.ENDED:
                self._state = _State.UNWANTED
        return runs

    @property
    def where(self) -> str | None:
        """File and line that its thread is at; None when it has ended."""
        frame = None if self._state is _State.ENDED else sys._current_frames().get(self._thread)
        return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
