"""Performing a fallback: what a step leads to while its handler may not be called."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from maypole.bus.fallbacks import Alert, Cached, Fallback, Pause, emitted_by
from maypole.schemas.envelope import DEGRADED, DEGRADED_AGE
from maypole.schemas.event import Event

REMEMBERED_MAX: Final = 1000
"""Business keys whose last outputs are kept in memory: those that were heard of last."""


class Served(NamedTuple):
    """`marks` are the headers of everything that the step writes; `detail` is the same in words."""

    events: Sequence[Event]
    marks: Sequence[tuple[str, bytes]]
    detail: str
    alert: Alert | None = None


class Serving:
    """Of one subscription. What `Cached` needs is remembered in this process only: after a start there is nothing yet."""

    def __init__(self, fallback: Fallback) -> None:
        self._fallback = fallback
        self._last: OrderedDict[str, tuple[Sequence[Event], float]] = OrderedDict()
        self.caches = isinstance(fallback, Cached)
        self.serves = not isinstance(fallback, Pause)
        """Otherwise everything waits."""

    def remember(self, business_key: str | None, events: Sequence[Event], now: float) -> None:
        """`now` in seconds of a clock that never goes back."""
        if business_key is None:
            return
        self._last[business_key] = (tuple(events), now)
        self._last.move_to_end(business_key)
        if len(self._last) > REMEMBERED_MAX:
            self._last.popitem(last=False)

    def serve(self, business_key: str | None, because: str, now: float) -> Served | None:
        """None: there is nothing to go on with, so the step waits."""
        fallback = self._fallback
        if isinstance(fallback, Cached):
            known = None if business_key is None else self._last.get(business_key)
            if known is not None:
                events, since = known
                age = now - since
                if fallback.age_seconds_max is None or age <= fallback.age_seconds_max:
                    marks = ((DEGRADED, b"cached"), (DEGRADED_AGE, b"%d" % age))
                    return Served(events, marks, f"degraded, cached {age:.0f} s ago: {because}")
            fallback = fallback.otherwise
        if isinstance(fallback, Pause):
            return None
        name = str(fallback.declaration()["do"])
        alert = fallback if isinstance(fallback, Alert) else None
        return Served(emitted_by(fallback), ((DEGRADED, name.encode()),), f"degraded, {name}: {because}", alert)
