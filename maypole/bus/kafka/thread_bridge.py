"""How a client's owner thread and the event loop talk: commands one way, calls and awaited coroutines the other."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class ThreadBridge:
    """Made on the loop; `tell` belongs to the loop, everything else to the thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def tell(self, command: Callable[[], None]) -> None:
        """Have the thread call this between two polls, in the order told."""
        self._commands.put(command)

    def obey(self) -> None:
        while self.obey_one(0):
            pass

    def obey_one(self, seconds: float) -> bool:
        """Wait for one command and run it; false when none came in time."""
        try:
            command = self._commands.get(timeout=seconds) if seconds > 0 else self._commands.get_nowait()
        except queue.Empty:
            return False
        command()
        return True

    def post(self, call: Callable[..., object], *args: object) -> bool:
        """Have the loop call this soon, in the order posted; false when the loop is gone."""
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            return False
        return True

    def ask(self, coroutine: Coroutine[Any, Any, T], between: Callable[[], None], given_up: Callable[[], bool]) -> T:
        """Run a coroutine on the loop and wait for it, obeying commands meanwhile (it may depend on one).

        `between` runs after each command. Once `given_up` is true the coroutine is cancelled (`CancelledError`).
        """
        try:
            answer = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise
        answer.add_done_callback(lambda _: self._commands.put(_nothing))
        while not answer.done():
            if given_up():
                answer.cancel()
                break
            # The bound is for a loop that stopped running without closing: nothing would ever wake us.
            self.obey_one(1.0)
            between()
        return answer.result()


def _nothing() -> None:
    return None
