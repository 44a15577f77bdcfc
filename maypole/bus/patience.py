"""Waiting for a ledger or a broker that is away: as long as it takes, and saying so once."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from maypole.bus.backoff import Backoff
from maypole.bus.ledger.port import LedgerUnavailable
from maypole.bus.ports import BrokerUnreachable

log = logging.getLogger("maypole.bus.patience")

T = TypeVar("T")


class Patience:
    """For one agent. Every call of a ledger is safe to repeat, and so is every question to the cluster."""

    def __init__(self, agent: str, backoff: Backoff) -> None:
        self._agent = agent
        self._backoff = backoff

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        attempt, away = 0, ""
        while True:
            try:
                answer = await call()
            except (LedgerUnavailable, BrokerUnreachable) as error:
                attempt, away = attempt + 1, "ledger" if isinstance(error, LedgerUnavailable) else "broker"
                if attempt == 1:
                    log.error("%s.unavailable", away, extra={"agent": self._agent, "error": str(error), "then": "delivery waits"})
                await self._backoff(attempt)
            else:
                if attempt:
                    log.warning("%s.available_again", away, extra={"agent": self._agent, "attempts": attempt})
                return answer
