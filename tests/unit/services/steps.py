"""Steps of the reference agents without a bus: a handler is called with an event and a context."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from maypole.bus import Context
from maypole.bus.dependencies import Dependencies
from maypole.bus.lease import Lease
from maypole.bus.memos import Memos
from maypole.bus.stores.memory import MemoryStore
from maypole.schemas.identifiers import EventId, FlowId, StepId

T = TypeVar("T")
TRIGGERED_AT_MS = 1_770_000_000_000


def _at_once(call: Callable[[], Awaitable[T]]) -> Awaitable[T]:
    return call()


def context(home: Path, step: str = "step-1", attempt: int = 1, lease: Lease | None = None, memos: Memos | None = None) -> Context:
    return Context(
        agent="agent",
        flow_id=FlowId("1f3a9c2e-0000-5000-8000-000000000000"),
        step_id=StepId(step),
        event_id=EventId("event-1"),
        attempt=attempt,
        business_key=None,
        triggered_at_ms=TRIGGERED_AT_MS,
        home=home,
        acts=True,
        memos=memos or Memos(MemoryStore(lambda: TRIGGERED_AT_MS).open("one"), StepId(step), patiently=_at_once),
        dependencies=Dependencies(time.monotonic, lambda name, transition: None),
        logger=logging.LoggerAdapter(logging.getLogger("maypole.agents.agent"), {}),
        lease=lease,
    )
