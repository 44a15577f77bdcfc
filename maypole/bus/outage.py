"""Which failures speak of an outage: somebody else's service is away. A wrong event is nobody's outage, a 429 is a rate limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from maypole.bus.outcomes import Reject
from maypole.schemas.errors import ContractRefused, Undecodable

_ABOUT_THE_EVENT: Final = (Reject, ContractRefused, Undecodable)
_TOO_MANY_REQUESTS: Final = 429
_CAUSES_MAX: Final = 32


class Unavailable(Exception):
    """A dependency's breaker is open: nothing was asked of it. `again_at` as in `Answer`; not a failure of whoever met it."""

    def __init__(self, dependency: str, again_at: float | None, because: str) -> None:
        super().__init__(f"the breaker of {dependency} is open: {because}")
        self.dependency = dependency
        self.again_at = again_at
        self.because = because


def is_outage(error: BaseException) -> bool:
    """What counts as a failure by default. A group counts if any of its exceptions does."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_outage, error.exceptions))
    if not isinstance(error, Exception) or isinstance(error, (*_ABOUT_THE_EVENT, Unavailable)):
        return False
    return not any(map(is_rate_limit, _with_causes(error)))


def is_rate_limit(error: BaseException) -> bool:
    """As clients of HTTP say it: a `status_code` or `status` of 429, of the error or its `response`; or a `retry_after`."""
    if _carried(error, "retry_after") is not None:
        return True
    found = (_carried(thing, name) for thing in (error, _carried(error, "response")) for name in ("status_code", "status"))
    return any(status == _TOO_MANY_REQUESTS for status in found)


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from: wrapping a 429 does not make it an outage."""
    found: BaseException | None = error
    for _ in range(_CAUSES_MAX):  # causes may form a ring
        if found is None:
            return
        yield found
        found = found.__cause__


def _carried(thing: object, name: str) -> object:
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 - a property of somebody's exception; what it cannot say it does not say
        return None
