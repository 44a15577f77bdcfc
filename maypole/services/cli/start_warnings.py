"""What an agent declares that can work and is hardly meant: told when it starts, because nothing fails later."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from typing import Final

from maypole.bus import Agent
from maypole.bus.catalog import View
from maypole.bus.composition import Platform
from maypole.services.cli.event_types import known_types
from maypole.services.cli.topic_plan import kind_of

_NEAR: Final = 0.8
"""A slip of the finger; below it lie names that have only their second half in common."""


async def start_warnings(platform: Platform, agents: Iterable[Agent]) -> list[str]:
    """Asked before the agents start: starting creates the topics they lack."""
    return list(warnings(list(agents), platform.catalog.view, await platform.transport.cluster.topics()))


def warnings(agents: Collection[Agent], view: View, topics: Iterable[str]) -> Iterator[str]:
    there = {name for name in topics if kind_of(name) in ("events", "platform")}
    emitted = {event.event_type for agent in agents for subscription in agent.subscriptions for event in subscription.emits}
    declared = {event for each in view.active() for subscription in each["subscriptions"] for event in subscription["emits"]}
    known = there | emitted | declared | set(known_types(view))
    for agent in agents:
        for subscription in agent.subscriptions:
            on = subscription.name
            if on in {event.event_type for event in subscription.emits}:
                yield f"{agent.name} emits {on} on {on}: each event leads to another one, for ever, and no such flow ends"
            if not subscription.undo_copes:
                yield f"{agent.name} cannot undo a step of {on} that was cut off: its undo must know what was emitted (declare it | None)"
            for trigger in subscription.triggers:
                event_type = trigger.event_type
                if event_type not in known:
                    # Whoever wrote a class for it has meant it.
                    near = get_close_matches(event_type, known, n=3, cutoff=_NEAR) if trigger.event_class is None else []
                    meant = f"did you mean {' or '.join(near)}?" if near else "so nothing will come until somebody publishes it"
                    yield f"{agent.name} subscribes to {event_type}, which no agent emits and which is no topic here; {meant}"
