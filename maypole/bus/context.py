"""What a handler may ask for beside its event, as a second parameter."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from maypole.schemas.identifiers import EventId, FlowId, StepId


@dataclass(frozen=True, slots=True)
class Context:
    """The step in hand. Everything but `attempt` is the same when the step is repeated.

    `home` is a folder for the agent's own state; it belongs to this cluster and is made on first use.
    """

    agent: str
    flow_id: FlowId
    step_id: StepId
    event_id: EventId
    attempt: int
    business_key: str | None
    triggered_at_ms: int
    home: Path
    logger: logging.LoggerAdapter[logging.Logger]

    @property
    def idempotency_key(self) -> str:
        """What outside services get, so that a repeated step is one request to them."""
        return self.step_id

    @property
    def triggered_at(self) -> datetime:
        """The broker's time of the event, in UTC: use it where the clock would make a repetition differ."""
        return datetime.fromtimestamp(self.triggered_at_ms / 1000, UTC)
