"""Calling somebody: the webhook of an `Alert`, once for each time that a breaker opened."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from collections.abc import Mapping
from typing import Final

from maypole.bus.fallbacks import Alert

log = logging.getLogger("maypole.bus.alerts")

TIMEOUT_SECONDS: Final = 10.0


class Alerts:
    """Of one agent. Nobody waits for an answer; a call that fails is logged and not repeated, because the event says it too."""

    def __init__(self, agent: str) -> None:
        self._agent = agent
        self._called: set[tuple[str, str]] = set()
        self._calls: set[asyncio.Task[None]] = set()

    def call(self, alert: Alert, about: Mapping[str, str], breaker: str) -> None:
        """Posts what the event says, and `about`, as JSON; `breaker` is the open one, whichever the step met."""
        subscription = about["subscription"]
        if alert.webhook is None or (subscription, breaker) in self._called:
            return
        self._called.add((subscription, breaker))
        event = {"type": type(alert.event).event_type, "data": alert.event.model_dump(mode="json")}
        body = json.dumps({**about, "event": event}).encode()
        task = asyncio.create_task(self._post(alert.webhook, body, subscription), name=f"{self._agent} alert")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def again(self, breaker: str) -> None:
        """It is closed: the next time is another one."""
        self._called = {each for each in self._called if each[1] != breaker}

    def close(self) -> None:
        for task in self._calls:
            task.cancel()

    async def _post(self, address: str, body: bytes, subscription: str) -> None:
        try:
            await asyncio.to_thread(_post, address, body)
        except (OSError, ValueError) as error:
            # The address may hold a secret.
            log.warning("alert.unheard", extra={"agent": self._agent, "subscription": subscription, "error": str(error)})


def _post(address: str, body: bytes) -> None:
    request = urllib.request.Request(address, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
        pass
