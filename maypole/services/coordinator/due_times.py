"""When what is due may be fired: at its time, but a command's not before its agent had a fair chance to answer.

Nothing is decided here: a deadline that fires later is the same deadline. Nobody shall have to decide about flows only because
a coordinator was away for longer than agents are waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from maypole.bus.recording import CLOCK_SKEW_MS, LEASE_MARGIN_MS
from maypole.services.saga import Ask, Command, Deadline, Outcome, Saga, deadlines, outstanding

ANSWER_MS: Final = 60_000
"""After a takeover an agent gets at least so long for what it was asked before: what kept the coordinator away may have kept it away."""


class DueTimes:
    """Of one partition, by the broker's clock."""

    def __init__(self, patience_ms: int, attempt_seconds: Callable[[str, str], float]) -> None:
        """`patience_ms`: how long a command may be without answer. `attempt_seconds`: how long an attempt of an agent's subscription
        may take, as far as anybody knows."""
        self._patience_ms = patience_ms
        self._attempt_seconds = attempt_seconds
        self._asking_since_ms: int | None = None

    def asked_from(self, now_ms: int) -> None:
        """What is owed is asked for since then. Only the first call counts."""
        if self._asking_since_ms is None:
            self._asking_since_ms = now_ms

    def of(self, saga: Saga, *, never_asked: bool) -> list[tuple[int, Deadline]]:
        """Each deadline with the time at which it may fire. `never_asked`: nobody may have asked for anything before us."""
        longer: dict[str, int] = {command.id: self._longer_ms(saga, command) for command in outstanding(saga)}
        waits = [(deadline.due_ms + longer.get(deadline.scope, 0), deadline) for deadline in deadlines(saga, self._patience_ms)]
        if not longer or self._asking_since_ms is None:
            return waits
        answer_ms = self._patience_ms if never_asked else min(ANSWER_MS, self._patience_ms)
        answer_by_ms = {scope: self._asking_since_ms + answer_ms + (more_ms if never_asked else 0) for scope, more_ms in longer.items()}
        return [(max(due_ms, answer_by_ms.get(deadline.scope, due_ms)), deadline) for due_ms, deadline in waits]

    def _longer_ms(self, saga: Saga, command: Command) -> int:
        """What patience lacks. An agent that is well has no answer before an attempt is over: an undo waits for the lease of one that
        did not end well, and of another try the end is the answer. A fence waits for nothing."""
        completed = command.kind is Ask.COMPENSATE and saga.of(command.step_id).outcome is Outcome.COMPLETED
        if command.kind is Ask.FENCE or completed:
            return 0
        lease_ms = int(self._attempt_seconds(command.agent, command.subscription) * 1000) + LEASE_MARGIN_MS + CLOCK_SKEW_MS
        return max(0, lease_ms - self._patience_ms)
