"""What the coordinator is called, where others can tell whether one lives."""

from __future__ import annotations

from typing import Final

from maypole.bus.catalog import View

COORDINATOR: Final = "maypole.coordinator"
"""Its consumer group; its dead letters lie on `maypole.coordinator.dlq`, its heartbeats under `instance/maypole.coordinator/`."""
SOURCE: Final = "/services/coordinator"


def coordinator_is_running(view: View, now: float) -> bool:
    """Whether any was heard of lately. `now` is in seconds since the epoch."""
    return bool(view.alive(COORDINATOR, now))
