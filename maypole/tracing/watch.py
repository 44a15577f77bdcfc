"""Notices handlers that take long: open spans are never exported, and a crash would leave nothing of them.

One thread for all handlers of a process, asleep while none runs. A thread and not a timer of the event loop,
because a handler that blocks the loop is the one that should be noticed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

NOTICE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.25


class Handling(Protocol):
    def noticed(self) -> None:
        """This runs for more than `NOTICE_SECONDS`. Called once, from the watch's thread."""
        ...


class Watch:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: dict[Handling, float] = {}
        self._busy = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="maypole watch", daemon=True)
        self._thread.start()

    def began(self, handling: Handling) -> None:
        self._running[handling] = self._clock()
        if not self._busy.is_set():
            self._busy.set()

    def ended(self, handling: Handling) -> None:
        self._running.pop(handling, None)

    def look(self) -> None:
        """Notice, once each, those that have run for long enough."""
        due = self._clock() - NOTICE_SECONDS
        # The dictionary keeps the order in which they began; one call copies it, as handlers end meanwhile.
        for handling, began in list(self._running.items()):
            if began > due:
                break
            if self._running.pop(handling, None) is not None:
                handling.noticed()

    def close(self) -> None:
        self._stopping.set()
        self._busy.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._busy.wait()
            self._stopping.wait(_LOOK_SECONDS)
            self.look()
            if not self._running:
                self._busy.clear()
                # One may have begun between the look and the clearing.
                if self._running or self._stopping.is_set():
                    self._busy.set()
