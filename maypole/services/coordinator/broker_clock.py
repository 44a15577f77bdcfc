"""The broker's time, as far as a process can tell: its own clock, corrected by what it reads.

A record that is read right after it was appended says what the broker's clock showed a moment ago. Of the last of these the
one that was read soonest is the best; while none was read, our own clock has to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

_SAMPLES: Final = 64


class BrokerClock:
    def __init__(self, now: Callable[[], float]) -> None:
        """`now` gives seconds since the epoch."""
        self._now = now
        self._ahead_ms: deque[int] = deque(maxlen=_SAMPLES)

    def heard(self, appended_ms: int) -> None:
        """A record with this time was just read, and was appended a moment ago."""
        self._ahead_ms.append(appended_ms - self.own_ms())

    def own_ms(self) -> int:
        return int(self._now() * 1000)

    def now_ms(self) -> int:
        return self.own_ms() + max(self._ahead_ms, default=0)
