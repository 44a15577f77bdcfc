"""How a handler says what it thinks of trying again."""

from __future__ import annotations

from datetime import timedelta


class Reject(Exception):
    """Raised by a handler: no repetition will help. The event goes to the agent's dead-letter topic with this reason.

    `acted=False`: this attempt has changed nothing outside, for sure. Without it a step that acts on the outside is taken
    to have acted, and is undone; after a pivot that failed, only a person can tell. Without a reason it says that none was given.
    """

    acted = True

    def __init__(self, *why: object, acted: bool = True) -> None:
        self.acted = acted
        super().__init__(*(why or ("the handler gave no reason",)))


class RetryLater(Exception):
    """Raised by a handler: try again, not before `after` has passed (seconds, or a timedelta). It counts as an attempt.

    Short waits happen in place; longer ones on the agent's retry topics, the flow's later events waiting behind.
    `acted=False` as for `Reject`. Raises `ValueError` for a negative time.
    """

    acted = True

    def __init__(self, after: float | timedelta, why: str = "", *, acted: bool = True) -> None:
        self.acted = acted
        seconds: object = after.total_seconds() if isinstance(after, timedelta) else after
        if not (isinstance(seconds, (int, float)) and 0 <= seconds < float("inf")):
            raise ValueError(f"RetryLater: expected seconds from 0 up, or a timedelta, found {after!r}")
        self.after_seconds = float(seconds)
        super().__init__(why or f"again in {self.after_seconds:g} s")
