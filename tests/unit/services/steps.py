"""Steps of the reference agents without a bus: a handler is called with an event and a context."""

from __future__ import annotations

import logging
from pathlib import Path

from maypole.bus import Context
from maypole.schemas.identifiers import EventId, FlowId, StepId

TRIGGERED_AT_MS = 1_770_000_000_000


def context(home: Path, step: str = "step-1", attempt: int = 1) -> Context:
    return Context(
        agent="agent",
        flow_id=FlowId("1f3a9c2e-0000-5000-8000-000000000000"),
        step_id=StepId(step),
        event_id=EventId("event-1"),
        attempt=attempt,
        business_key=None,
        triggered_at_ms=TRIGGERED_AT_MS,
        home=home,
        logger=logging.LoggerAdapter(logging.getLogger("maypole.agents.agent"), {}),
    )
