"""How often a failed step is tried again, how long apart, and because of which exceptions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from maypole.bus.backoff import CAP_SECONDS

ATTEMPTS_DEFAULT: Final = 3
IN_PLACE_SECONDS_MAX: Final = CAP_SECONDS
"""What is waited longer goes to a retry topic: a wait in place keeps a worker, a place in the window and the partition's position."""
HOPS_DEFAULT: Final = (30.0,)
"""For an agent that declares no delay of its own: where `RetryLater` waits."""


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` counts all, the first one included. `delays`: what lies between two, in seconds or timedeltas; the last is repeated.

    A delay of at most `IN_PLACE_SECONDS_MAX` is waited in place, and with full jitter it is the longest wait; a longer one
    on the agent's retry topic of that delay, and it is the shortest. Without delays: in place, from 0.2 s on, doubled each time.
    `on`: exceptions that may pass; any other one is final at once. A timeout is a `TimeoutError`.
    """

    attempts: int = ATTEMPTS_DEFAULT
    delays: Sequence[float | timedelta] = ()
    on: type[BaseException] | tuple[type[BaseException], ...] = (BaseException,)

    def __post_init__(self) -> None:
        delays = tuple(each.total_seconds() if isinstance(each, timedelta) else float(each) for each in self.delays)
        on: tuple[object, ...] = self.on if isinstance(self.on, tuple) else (self.on,)
        if self.attempts < 1 or not all(0 < each < math.inf for each in delays):
            raise ValueError(f"expected attempts >= 1 and delays > 0 (seconds or timedeltas), found {self.attempts} and {self.delays!r}")
        if not on or not all(isinstance(each, type) and issubclass(each, BaseException) for each in on):
            raise ValueError(f"expected classes of exceptions to retry on, found {self.on!r}")
        object.__setattr__(self, "delays", delays)
        object.__setattr__(self, "on", on)

    def delay_after(self, attempt: int) -> float | None:
        """Seconds between this attempt and the next; None: the backoff in place."""
        delays: Sequence[float] = self.delays  # type: ignore[assignment]  # made so above
        return delays[min(attempt, len(delays)) - 1] if delays else None

    def again(self, attempt: int, error: BaseException) -> bool:
        """Whether an attempt that failed so is followed by another."""
        return attempt < self.attempts and isinstance(error, self.on)

    @property
    def long_delays(self) -> frozenset[float]:
        """Those that have a retry topic."""
        return frozenset(each for each in self.delays if each > IN_PLACE_SECONDS_MAX)  # type: ignore[operator,misc]  # floats, as above

    def declaration(self) -> dict[str, Any]:
        on: tuple[type[BaseException], ...] = self.on  # type: ignore[assignment]
        return {"attempts": self.attempts, "delays_seconds": list(self.delays), "on": [each.__name__ for each in on]}


def hops(policies: Iterable[Retry]) -> tuple[float, ...]:
    """The delays of an agent's retry topics, in seconds, the shortest first."""
    declared: set[float] = set()
    for policy in policies:
        declared |= policy.long_delays
    return tuple(sorted(declared)) or HOPS_DEFAULT


def declared_hops(declaration: Mapping[str, Any]) -> tuple[float, ...]:
    """`hops` of an agent that is known by its declaration in the catalog."""
    policies = [subscription.get("retry") for subscription in declaration["subscriptions"]]
    return hops(Retry(delays=each["delays_seconds"]) for each in policies if isinstance(each, dict))


def hop(delays: Sequence[float], seconds: float) -> float:
    """Where to wait for so long: on the longest delay that is not longer, and from there again. Or on the shortest there is."""
    return max((each for each in delays if each <= seconds), default=min(delays))
