"""How long an attempt may act, by its own clock: its successor begins when that time is over, and cannot call it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class LeaseOver(RuntimeError):
    """This attempt must not act any more: its process stood still, or its machine's clock was set forward."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Of one attempt; both in milliseconds since the epoch."""

    until_ms: int
    now_ms: Callable[[], int]

    def check(self, used: str) -> None:
        """Raises `LeaseOver`. Between this and what is done then, a process may stand still again: what is outside must know keys."""
        late_ms = self.now_ms() - self.until_ms
        if late_ms >= 0:
            raise LeaseOver(
                f"{used}: expected an attempt that may still act, found one whose time ended {late_ms} ms ago; "
                "another one may be under way, or done, so this one stops here"
            )
