"""How a handler says what it thinks of trying again."""

from __future__ import annotations

from datetime import timedelta


class Reject(Exception):
    """Raised by a handler: no repetition will help. The event goes to the agent's dead-letter topic with this reason.

    `acted=False`: this attempt has changed nothing outside, for sure. Without it a step that acts on the outside is taken
    to have acted, and is undone; after a pivot that failed, only a person can tell.
    """

    acted = True

    def __init__(self, *why: object, acted: bool = True) -> None:
        self.acted = acted
        super().__init__(*why)


class RetryLater(Exception):
    """Raised by a handler: try again, not before `after` has passed (seconds, or a timedelta). It counts as an attempt.

    Short waits happen in place; longer ones on the agent's retry topics, the flow's later events waiting behind.
    `acted=False` as for `Reject`. Raises `ValueError` for a negative time.
    """

    acted = True

    def __init__(self, after: float | timedelta, why: str = "", *, acted: bool = True) -> None:
        self.acted = acted
        self.after_seconds = after.total_seconds() if isinstance(after, timedelta) else float(after)
        if not 0 <= self.after_seconds < float("inf"):
            raise ValueError(f"RetryLater: expected seconds from 0 up, or a timedelta, found {after!r}")
        super().__init__(why or f"again in {self.after_seconds:g} s")
