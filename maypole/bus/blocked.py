"""Notices from a thread of its own when a coroutine handler keeps the event loop to itself, and names it.

Such a handler stops everything in its process: other flows, rebalances, heartbeats, and the timers that would limit it.
Nothing is done per record. The thread looks at which task the loop runs; only one that it meets twice in a row is
asked for a sign of life, so an idle loop, one that is merely busy, and one in virtual time are left alone.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from maypole.bus.attempt import attempted
from maypole.bus.child_tasks import handling_task

log = logging.getLogger("maypole.bus.blocked")

BLOCKED_SECONDS: Final = 2.0
"""Well under the five seconds that a rebalance waits for work in hand and the ten between heartbeats, and far over what
decoding or a garbage collection takes."""
_LOOKS: Final = 4
_STANDARD: Final = (sysconfig.get_paths()["stdlib"], "<frozen")

Describe = Callable[["asyncio.Task[Any]"], Mapping[str, Any] | None]
"""What is known of the step that a task works on; None when the task is nobody's."""


@contextmanager
def watching_for_blocks(describe: Describe, blocked_seconds: float = BLOCKED_SECONDS) -> Iterator[None]:
    """Log `loop.blocked`, once for each time that a task held the running loop for so long."""
    watch = _Watch(asyncio.get_running_loop(), describe, blocked_seconds)
    thread = threading.Thread(target=watch.run, name="maypole-blocked-loop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.stopping.set()


class _Watch:
    def __init__(self, loop: asyncio.AbstractEventLoop, describe: Describe, blocked_seconds: float) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._describe = describe
        self._pause = blocked_seconds / _LOOKS
        self.stopping = threading.Event()

    def run(self) -> None:
        suspect: asyncio.Task[Any] | None = None
        alive = threading.Event()
        looks = 0
        while not self.stopping.wait(self._pause):
            task = asyncio.current_task(self._loop)
            if task is None or task is not suspect or (looks and alive.is_set()):
                suspect, looks = task, 0
                continue
            looks += 1
            if looks == 1:
                # Met twice: it may be one long step or many short ones. A loop that is free answers at once.
                alive = threading.Event()
                try:
                    self._loop.call_soon_threadsafe(alive.set)
                except RuntimeError:
                    return  # the loop is closed
            elif looks == _LOOKS:
                # Looks are counted, not seconds: when the whole process stood still, nobody looked.
                self._tell(task, looks * self._pause)

    def _tell(self, task: asyncio.Task[Any], seconds: float) -> None:
        about = self._describe(handling_task(task))
        frame = sys._current_frames().get(self._loop_thread)
        if about is None or frame is None:
            return
        log.error(
            "loop.blocked",
            extra={
                **about,
                "at": _place(_own(frame) or frame),
                "within": _place(frame),
                "seconds": seconds,
                "hint": "nothing else in this process goes on, and no timeout can end it: await what it waits for, "
                "or make the handler a plain `def`, which runs in a thread",
            },
        )


def _own(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the program's own code: what a library does in there interests its author."""
    while frame is not None and frame.f_code is not attempted.__code__:
        path = frame.f_code.co_filename
        if not path.startswith(_STANDARD) and "site-packages" not in path:
            return frame
        frame = frame.f_back
    return None


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
