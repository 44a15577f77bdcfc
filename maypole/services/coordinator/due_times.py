"""When what is due may be fired: at its time, but a command's not before its agent had a fair chance to answer.

Nothing is decided here: a deadline that fires later is the same deadline. Nobody shall have to decide about flows only because
a coordinator was away for longer than agents are waited for.
"""

from __future__ import annotations

from typing import Final

from maypole.services.saga import Deadline, Saga, deadlines, outstanding

ANSWER_MS: Final = 60_000
"""After a takeover an agent gets at least so long for what it was asked before: what kept the coordinator away may have kept it away."""


class DueTimes:
    """Of one partition, by the broker's clock."""

    def __init__(self, patience_ms: int) -> None:
        """`patience_ms`: how long a command may be without answer."""
        self._patience_ms = patience_ms
        self._asking_since_ms: int | None = None

    def asked_from(self, now_ms: int) -> None:
        """What is owed is asked for since then. Only the first call counts."""
        if self._asking_since_ms is None:
            self._asking_since_ms = now_ms

    def of(self, saga: Saga, *, never_asked: bool) -> list[tuple[int, Deadline]]:
        """Each deadline with the time at which it may fire. `never_asked`: nobody may have asked for anything before us."""
        waits = [(deadline.due_ms, deadline) for deadline in deadlines(saga, self._patience_ms)]
        if not saga.asked or self._asking_since_ms is None:
            return waits
        asked = {command.id for command in outstanding(saga)}
        answer_by_ms = self._asking_since_ms + (self._patience_ms if never_asked else min(ANSWER_MS, self._patience_ms))
        return [(max(due_ms, answer_by_ms) if deadline.scope in asked else due_ms, deadline) for due_ms, deadline in waits]
