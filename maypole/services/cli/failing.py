"""An agent that fails for good, for showing what happens then: the declaration of another one, and nothing behind it.

It fails before it has changed anything, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maypole.bus import Agent, Event, Kind, Reject


def failing(agent: Agent) -> Agent:
    """The same name, subscriptions, contracts and outputs; every event is refused, and what was to be undone still can be."""
    broken = Agent(agent.name, version=agent.version, concurrency=agent.concurrency)

    for subscription in agent.subscriptions:

        async def refuse(event: Event | Mapping[str, Any]) -> None:
            raise Reject(f"{agent.name} was told to fail, to show what happens then", acted=False)

        refuse.__annotations__["event"] = subscription.event_class or Mapping[str, Any]
        # What a handler may emit is read from its annotation.
        emits: Any = subscription.emits
        refuse.__annotations__["return"] = tuple[emits] if emits else None
        reaction = broken.on(
            subscription.event_class or subscription.event_type,
            require=subscription.requires,
            pure=subscription.kind is Kind.PURE,
            pivot=subscription.kind is Kind.PIVOT,
            retriable=subscription.kind is Kind.RETRIABLE,
        )(refuse)
        if subscription.undo is not None:
            reaction.undo(subscription.undo)
    return broken
