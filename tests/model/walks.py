"""Journals as they come about: one way through a scenario, chosen move by move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from maypole.schemas.event import Event
from maypole.schemas.journal import FlowStarted, Produced
from tests.model.coordinator import RecordKey
from tests.model.explore import Explorer, World
from tests.model.records import Records
from tests.model.scenario import Scenario


class Walker(Explorer):
    """Remembers what is journaled by the move that is under way."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.records = Records(scenario)
        self._written: list[RecordKey] = []

    def _journaled(self, world: World, record: RecordKey) -> tuple[World, list[str]]:
        self._written.append(record)
        return super()._journaled(world, record)

    def walk(self, choose: Callable[[int], int], moves_max: int) -> list[RecordKey]:
        """`choose` picks one of so many moves. Ends where nothing more can happen, or after `moves_max`."""
        world, journal = self.first(), list[RecordKey]()
        for _ in range(moves_max):
            choices: list[tuple[World, tuple[RecordKey, ...]]] = []
            self._written.clear()
            for _, after, _ in self._next(world):
                choices.append((after, tuple(self._written)))
                self._written.clear()
            if not choices:
                break
            world, written = choices[choose(len(choices))]
            journal += written
        return journal


@dataclass(frozen=True)
class Journal:
    scenario: Scenario
    keys: tuple[RecordKey, ...]
    records: tuple[Event, ...] = field(compare=False, repr=False)


@cache
def walker(scenario: Scenario) -> Walker:
    return Walker(scenario)


def journal(scenario: Scenario, choose: Callable[[int], int], moves_max: int = 120) -> Journal:
    """`FlowStarted` and what was journaled after it."""
    keys = tuple(walker(scenario).walk(choose, moves_max))
    root = Produced(event_id=scenario.root.event_id, type=scenario.root.type, digest=bytes(32))
    started = FlowStarted(choreography=scenario.choreography.hash, deadline_ms=1, roots=(root,))
    return Journal(scenario, keys, (started, *map(walker(scenario).records, keys)))
