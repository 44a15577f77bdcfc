"""What is done instead of pausing is declared, and can be read off the declaration."""

from __future__ import annotations

import pytest

from maypole.bus import Event
from maypole.bus.breaker import Breaker
from maypole.bus.fallbacks import Alert, Cached, Default, Fallback, Pause, Skip, degrades


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
