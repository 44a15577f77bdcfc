"""What `pure=True` promises, put to the test: called twice with the same event, the handler emits the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, cast

from maypole.bus.agent import Agent
from maypole.bus.subscription import Handler, Kind, Subscription


class Repeated:
    """Calls every handler of a pure step twice in a row; `broken` says of which step the answers differed."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def of(self, agent: Agent) -> Agent:
        """The same agent with handlers that are watched."""
        return agent.with_handlers(lambda each: self._watched(agent.name, each) if each.kind is Kind.PURE else each.handler)

    def _watched(self, agent: str, subscription: Subscription) -> Handler:
        handler = subscription.handler

        def compare(first: object, again: object) -> None:
            if first != again:
                self.broken.append(
                    f"not pure: {agent} on {subscription.name} emitted {first!r}, and {again!r} when it was called again with the same; "
                    "expected the same, as pure=True promises: leave it out, and the step is recorded"
                )

        if subscription.is_async:
            called = cast(Callable[..., Awaitable[object]], handler)

            @wraps(handler)
            async def twice(*arguments: Any) -> object:
                first = await called(*arguments)
                compare(first, await called(*arguments))
                return first

            return twice

        @wraps(handler)
        def twice_in_a_thread(*arguments: Any) -> object:
            first = handler(*arguments)
            compare(first, handler(*arguments))
            return first

        return twice_in_a_thread
