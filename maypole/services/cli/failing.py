"""An agent that fails for good, for showing what happens then: the declaration of another one, and nothing behind it.

It fails before it has changed anything, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, Signature
from typing import Any, Union

from maypole.bus import Agent, Event, Kind, Reject
from maypole.bus.joining import all_of


def failing(agent: Agent) -> Agent:
    """The same name, subscriptions, contracts and outputs; every event is refused, and what was to be undone still can be."""
    broken = Agent(agent.name, version=agent.version, concurrency=agent.concurrency)

    for subscription in agent.subscriptions:

        async def refuse(*events: Event | Mapping[str, Any]) -> None:
            raise Reject(f"{agent.name} was told to fail, to show what happens then", acted=False)

        # What a handler takes and may emit is read from its signature.
        parts = [trigger.event_class or trigger.event_type for trigger in subscription.triggers]
        parameters = [Parameter(f"part_{number}", Parameter.POSITIONAL_ONLY) for number, _ in enumerate(parts)]
        refuse.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        emits: Any = subscription.emits
        # As the other one says it, because an undo that was declared for one event is not given a tuple.
        some: Any = tuple[emits] if subscription.emits_several else Union[emits] if emits else None  # noqa: UP007 - of as many as there are
        refuse.__annotations__ = {"return": some}
        requires = {part: trigger.requires for part, trigger in zip(parts, subscription.triggers, strict=True)}
        reaction = broken.on(
            all_of(*parts) if subscription.is_join else parts[0],
            within=None if subscription.within_ms is None else f"{subscription.within_ms}ms",
            require=requires if subscription.is_join else requires[parts[0]],
            pure=subscription.kind is Kind.PURE,
            pivot=subscription.kind is Kind.PIVOT,
            retriable=subscription.kind is Kind.RETRIABLE,
            optional=subscription.optional,
        )(refuse)
        if subscription.undo is not None:
            reaction.undo(retry=subscription.undo_retry)(subscription.undo)
        if subscription.verify is not None:
            reaction.verify(subscription.verify)
        if subscription.expiry is not None:
            reaction.expired(subscription.expiry.handler)
    return broken
