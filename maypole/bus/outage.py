"""Which failures speak of an outage: somebody else's service is away. A wrong event is nobody's outage, a 429 is a rate limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import ValidationError

from maypole.bus.outcomes import Reject, RetryLater
from maypole.schemas.errors import ContractRefused, Undecodable

# A ValidationError is a contract broken by what the handler made, as of an answer that is not what was asked for.
_NOBODYS_OUTAGE: Final = (Reject, ContractRefused, Undecodable, RetryLater, ValidationError)
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
    if not isinstance(error, Exception) or isinstance(error, (*_NOBODYS_OUTAGE, Unavailable)):
        return False
    return not any(map(is_rate_limit, causes_of(error)))


def unavailable_in(error: BaseException) -> Unavailable | None:
    """The refusal of a dependency that this failure comes from."""
    return next((cause for cause in causes_of(error) if isinstance(cause, Unavailable)), None)


def is_rate_limit(error: BaseException) -> bool:
    """As clients of HTTP say it: a `status_code` or `status` of 429, of the error or its `response`; or a `retry_after`."""
    if _carried(error, "retry_after") is not None:
        return True
    found = (_carried(thing, name) for thing in (error, _carried(error, "response")) for name in ("status_code", "status"))
    return any(status == _TOO_MANY_REQUESTS for status in found)


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and what is in a group: wrapping a 429 does not make it an outage."""
    waiting = [error]
    for _ in range(_CAUSES_MAX):  # causes may form a ring
        if not waiting:
            return
        found = waiting.pop()
        yield found
        if found.__cause__ is not None:
            waiting.append(found.__cause__)
        if isinstance(found, BaseExceptionGroup):
            waiting.extend(found.exceptions)


def _carried(thing: object, name: str) -> object:
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 - a property of somebody's exception; what it cannot say it does not say
        return None
