"""When something is due, as data: the coordinator's timers append `DeadlineFired` at these times, and decide nothing themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from maypole.services.saga.engine import outstanding
from maypole.services.saga.facts import Ask, Outcome, Phase, Saga
from maypole.services.saga.forward import Forward
from maypole.services.saga.reach import Place


class Deadline(NamedTuple):
    """`scope` is what `DeadlineFired` carries: the flow, a step or a command. Absolute, by the broker's clock."""

    scope: str
    due_ms: int


def deadlines(saga: Saga, patience_ms: int) -> Iterator[Deadline]:
    """`patience_ms` is how long a command may be without answer before somebody has to look. Nothing is due twice."""
    if saga.choreography is None:
        return
    if saga.phase in (Phase.RUNNING, Phase.FORWARD_ONLY):
        if not saga.overdue:
            yield Deadline(saga.flow_id, saga.started_ms + saga.deadline_ms)
        if saga.choreography.has_joins_that_expire:
            yield from _of_joins(saga)
    for command in outstanding(saga):
        if command.kind is not Ask.RETRY or saga.phase is not Phase.RUNNING:
            yield Deadline(command.id, command.since_ms + patience_ms)


def _of_joins(saga: Saga) -> Iterator[Deadline]:
    """A join is due some time after its first part was journaled."""
    first: dict[int, int] = {}
    places = Forward(saga).reach.values()
    for parent in places:
        if parent.facts.outcome is not Outcome.COMPLETED:
            continue
        for child in parent.children:
            first[id(child)] = min(first.get(id(child), parent.facts.ended_ms), parent.facts.ended_ms)
    for place in places:
        if place.reaction.within_ms is not None and _waits(place):
            since = saga.started_ms if set(place.trigger) & set(saga.roots) else first[id(place)]
            yield Deadline(place.step_id, since + place.reaction.within_ms)


def _waits(place: Place) -> bool:
    return not place.is_final and not place.facts.expired and place.facts.chance == 1 and not place.guessed
