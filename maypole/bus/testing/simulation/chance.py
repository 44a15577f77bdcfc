"""Every accident of a run, drawn from its seed, and each by a name, so that one can be left out and the rest tried again."""

from __future__ import annotations

import math
import random
from collections.abc import Collection
from typing import NamedTuple

from maypole.bus.testing.simulation.odds import Odds


class Accident(NamedTuple):
    """The `number`th time that something of this kind might have happened."""

    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.kind}#{self.number}"


class Chance:
    """A stream of its own for each kind: what is left out of one does not move the others.

    `only`: the accidents that may happen; None: all that are drawn.
    """

    def __init__(self, seed: int, odds: Odds, only: Collection[Accident] | None = None) -> None:
        self.seed = seed
        self._odds = odds
        self._only = only
        self._streams: dict[str, random.Random] = {}
        self._asked: dict[str, int] = {}
        self.calm = True
        """While it is, nothing is drawn and nothing happens."""
        self.happened: list[Accident] = []

    def strikes(self, kind: str) -> float | None:
        """None: it does not happen. Otherwise how hard, evenly between 0 and 1. `kind` is one of the odds."""
        odds: float = getattr(self._odds, kind)
        if self.calm or not odds:
            return None
        number = self._asked[kind] = self._asked.get(kind, 0) + 1
        drawn: float = self.stream(kind).random()
        if drawn >= odds:
            return None
        accident = Accident(kind, number)
        if self._only is not None and accident not in self._only:
            return None
        self.happened.append(accident)
        return drawn / odds

    def stream(self, name: str) -> random.Random:
        """Of everything that has to be drawn and is no accident: how long a call takes."""
        found = self._streams.get(name)
        if found is None:
            found = self._streams[name] = random.Random(f"{self.seed}/{name}")
        return found


def log_uniform(fraction: float, smallest: float, largest: float) -> float:
    """As many small values as large ones, in orders of magnitude."""
    return smallest * math.pow(largest / smallest, fraction)
