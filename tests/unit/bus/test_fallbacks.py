"""What is done instead of pausing is declared, and can be read off the declaration."""

from __future__ import annotations

import pytest

from maypole.bus import Event
from maypole.bus.breaker import Breaker
from maypole.bus.fallbacks import Alert, Cached, Default, Fallback, Pause, Skip, degrades
from maypole.bus.serving import REMEMBERED_MAX, Serving


class Guessed(Event, type="fallback.guessed"):
    price: int


GUESS = Guessed(price=7)


@pytest.mark.parametrize(
    ("fallback", "declared"),
    [
        (Pause(), {"do": "pause"}),
        (Skip(), {"do": "skip", "event": None}),
        (Skip(GUESS), {"do": "skip", "event": "fallback.guessed"}),
        (Default(GUESS, GUESS), {"do": "default", "events": ["fallback.guessed"] * 2}),
        (Cached(60), {"do": "cached", "age_seconds_max": 60, "otherwise": {"do": "pause"}}),
        (Cached(otherwise=Skip()), {"do": "cached", "age_seconds_max": None, "otherwise": {"do": "skip", "event": None}}),
        (Alert(GUESS, "https://example.org/secret"), {"do": "alert", "event": "fallback.guessed", "webhook": True}),
    ],
)
def test_a_fallback_is_data_and_only_pausing_leaves_a_flow_as_good_as_it_was(fallback: Fallback, declared: dict[str, object]) -> None:
    assert Breaker(fallback=fallback).declaration()["fallback"] == declared
    assert degrades(fallback) == (declared["do"] != "pause")
    assert hash(fallback) == hash(fallback)


def test_what_cannot_work_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ValueError, match="at least one event"):
        Default()
    with pytest.raises(ValueError, match="age_seconds_max > 0"):
        Cached(0)
    with pytest.raises(ValueError, match="begins with http"):
        Alert(GUESS, "example.org")


def served(serving: Serving, business_key: str | None, now: float) -> tuple[str, int] | None:
    """By what, and how many events; None where it waits."""
    found = serving.serve(business_key, "nobody answers", now)
    return None if found is None else (dict(found.marks)["ce_degraded"].decode(), len(found.events))


@pytest.mark.parametrize(
    ("otherwise", "then"),
    [
        (Pause(), None),
        (Skip(), ("skip", 0)),
        (Skip(GUESS), ("skip", 1)),
        (Default(GUESS, GUESS), ("default", 2)),
        (Alert(GUESS), ("alert", 1)),
    ],
)
def test_what_is_too_old_or_was_never_known_is_served_otherwise(
    otherwise: Pause | Skip | Default | Alert, then: tuple[str, int] | None
) -> None:
    serving = Serving(Cached(300, otherwise))
    serving.remember("known", [GUESS, GUESS, GUESS], now=1000)
    assert served(serving, "known", now=1300) == ("cached", 3)
    assert served(serving, "known", now=1300.5) == then
    assert served(serving, "unknown", now=1000) == then == served(serving, None, now=1000)
    assert serving.serves, "it never waits at the gate: the next one may be known"


def test_the_keys_that_were_heard_of_last_are_remembered() -> None:
    serving = Serving(Cached())
    for number in range(REMEMBERED_MAX):
        serving.remember(str(number), [GUESS], now=0)
    serving.remember("0", [GUESS], now=1)
    serving.remember("one more", [GUESS], now=1)
    assert served(serving, "1", now=1e9) is None
    assert served(serving, "0", now=1e9) == ("cached", 1) == served(serving, "one more", now=1e9)
