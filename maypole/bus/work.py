"""One delivery in hand, on its way from the source to the commit."""

from __future__ import annotations

from collections.abc import Sequence

from maypole.bus.hook import Outcome, Processing, Sending
from maypole.bus.ports import Delivery, Record, TopicPartition
from maypole.bus.watermark import Watermark


class Ownership:
    """A partition while it is ours. Work refers to it, so that nothing of a partition that was taken away is published or committed."""

    __slots__ = ("at", "in_progress", "ours", "taking", "watermark")

    def __init__(self, at: TopicPartition) -> None:
        self.at = at
        self.watermark = Watermark()
        self.taking = True
        """Records of it may still be started."""
        self.ours = True
        """What it leads to may still be published."""
        self.in_progress = 0
        """Records started and not yet done."""


class Work:
    __slots__ = (
        "attempts",
        "delivery",
        "detail",
        "journal",
        "lane",
        "outcome",
        "outputs",
        "ownership",
        "processing",
        "sendings",
        "taken_at",
    )

    def __init__(self, delivery: Delivery, ownership: Ownership, lane: object, taken_at: float) -> None:
        self.delivery = delivery
        self.ownership = ownership
        self.lane = lane
        self.taken_at = taken_at
        self.journal: Record | None = None
        self.outputs: Sequence[Record] = ()
        self.sendings: Sequence[Sending] = ()
        self.processing: Processing | None = None
        self.outcome: Outcome = "ok"
        self.attempts = 0
        self.detail: str | None = None
