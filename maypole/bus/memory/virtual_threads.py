"""Threads under virtual time: what they answer reaches the loop in the order in which they were asked.

Threads run side by side and end when they end. Were each answer delivered at once, two handlers in threads would
finish in another order in every run. So an answer waits until the loop has nothing else to do, and until those who
were asked before it have answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Final

PATIENCE_SECONDS_DEFAULT: Final = 5.0
"""Real seconds that an answer waits for the one before it: that thread may itself wait for what this answer leads to."""


class VirtualThreads:
    """Stands in for `run_in_executor` of one loop. Its methods belong to the loop's thread."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._asked: deque[tuple[Future[Any], asyncio.Future[Any]]] = deque()

    def __bool__(self) -> bool:
        """Whether a thread works, or its answer is still to be delivered."""
        return bool(self._asked)

    def run(self, executor: Executor | None, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        work = self._executor(executor).submit(function, *arguments)
        answer: asyncio.Future[Any] = self._loop.create_future()
        answer.add_done_callback(lambda answer: answer.cancelled() and work.cancel())
        self._asked.append((work, answer))
        work.add_done_callback(lambda _: self._loop._write_to_self())
        return answer

    def deliver_next(self) -> bool:
        """Deliver the oldest answer, if it is there."""
        if not self._asked or not self._asked[0][0].done():
            return False
        _deliver(*self._asked.popleft())
        return True

    def deliver_any(self) -> bool:
        """Deliver the oldest of the answers that are there, whoever was asked before."""
        for asked in self._asked:
            if asked[0].done():
                self._asked.remove(asked)
                _deliver(*asked)
                return True
        return False

    def release(self) -> None:
        """From now on each answer is delivered when it comes."""
        for work, answer in self._asked:
            work.add_done_callback(lambda work, answer=answer: self._deliver_from_thread(work, answer))  # type: ignore[misc]
        self._asked.clear()

    def _deliver_from_thread(self, work: Future[Any], answer: asyncio.Future[Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(_deliver, work, answer)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            return

    def _executor(self, executor: Executor | None) -> Executor:
        if executor is not None:
            return executor
        if self._loop._default_executor is None:
            self._loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
        found: Executor = self._loop._default_executor
        return found


def _deliver(work: Future[Any], answer: asyncio.Future[Any]) -> None:
    if answer.done():
        return
    if work.cancelled():
        answer.cancel()
    elif (error := work.exception()) is None:
        answer.set_result(work.result())
    elif isinstance(error, StopIteration):
        # A future cannot hold one: it would end the coroutine that awaits it.
        answer.set_exception(RuntimeError(f"a thread raised {error!r}"))
    else:
        answer.set_exception(error)
