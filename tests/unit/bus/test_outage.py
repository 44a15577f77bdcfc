"""What counts as a failure of somebody else's service, and what never does."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from maypole.bus import Event, Reject
from maypole.bus.outage import Unavailable, is_outage, is_rate_limit
from maypole.schemas.errors import ContractRefused, Undecodable


class Answered(Exception):
    """As clients of HTTP raise: with the status, or with the whole response."""

    def __init__(self, **carried: object) -> None:
        super().__init__(str(carried))
        self.__dict__.update(carried)


class Response:
    def __init__(self, **carried: object) -> None:
        self.__dict__.update(carried)


class Broken(Exception):
    @property
    def status_code(self) -> int:
        raise RuntimeError("no response was received")


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


class Rated(Event, type="outage.rated"):
    stars: int


def broken_contract() -> ValidationError:
    try:
        Rated.model_validate({"stars": "five"})
    except ValidationError as error:
        return error
    raise AssertionError("five is no number")


@pytest.mark.parametrize(
    "error",
    [TimeoutError(), ConnectionError(), ValueError("anything"), Answered(status_code=503), Answered(status=500), Broken(),
     Answered(retry_after=None, status_code=502), caused(KeyError("x"), OSError()), ExceptionGroup("", [Reject(""), OSError()])],
    ids=repr,
)  # fmt: skip
def test_any_failure_of_the_work_counts(error: Exception) -> None:
    assert is_outage(error)
    assert not is_rate_limit(error)


@pytest.mark.parametrize(
    "error",
    [Answered(status_code=429), Answered(status=429), Answered(response=Response(status_code=429)), Answered(response=Response(status=429)),
     Answered(retry_after=3), Answered(retry_after=0), Answered(status_code=503, retry_after=3.0)],
    ids=repr,
)  # fmt: skip
def test_a_rate_limit_is_no_outage_however_it_is_wrapped(error: Exception) -> None:
    assert is_rate_limit(error)
    assert not is_outage(error)
    assert not is_outage(caused(RuntimeError("the model did not answer"), caused(KeyError(), error)))
    assert not is_outage(ExceptionGroup("", [error, ExceptionGroup("", [error])]))


@pytest.mark.parametrize(
    "error",
    [Reject("no"), ContractRefused(field="a", value=1, rule="b"), Undecodable("bytes"), Unavailable("model", 60.0, "5 failures"),
     asyncio.CancelledError(), KeyboardInterrupt(), broken_contract()],
    ids=repr,
)  # fmt: skip
def test_a_wrong_event_or_an_order_to_stop_is_nobodys_outage(error: BaseException) -> None:
    assert not is_outage(error)


def test_causes_in_a_ring_come_to_an_end() -> None:
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one
    assert is_outage(one)
