"""Every kind of topic, declared once: its name, partitions and settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

JOURNAL: Final = "maypole.journal"
CATALOG: Final = "maypole.catalog"
FLOW_ENDED: Final = "maypole.flow.ended"

_DAY_MS: Final = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """`partitions` None: `PARTITIONS_DEFAULT`, unless the cluster's owner wants another number. Retention -1 keeps for ever."""

    name: str
    partitions: int | None = None
    retention_ms: int = 7 * _DAY_MS
    compacted: bool = False
    record_bytes_max: int | None = None
    """None: the broker's default."""
    broker_time: bool = False
    """The broker stamps records when it appends them, so that deadlines do not depend on the clocks of producers."""

    @property
    def config(self) -> dict[str, str]:
        """The settings in Kafka's own names."""
        settings = {"retention.ms": str(self.retention_ms), "cleanup.policy": "compact" if self.compacted else "delete"}
        if self.compacted:
            settings["min.cleanable.dirty.ratio"] = "0.1"
        if self.record_bytes_max is not None:
            settings["max.message.bytes"] = str(self.record_bytes_max)
        if self.broker_time:
            settings["message.timestamp.type"] = "LogAppendTime"
        return settings

    def partitioned(self, partitions: int) -> Topic:
        return self if self.partitions is not None else replace(self, partitions=partitions)


PARTITIONS_DEFAULT: Final = 4
"""Also what librdkafka's mock cluster gives a topic on first use, so that an embedded broker agrees with the declaration."""

# The partition count of the journal is fixed for life: a flow's records must stay in one total order.
PLATFORM: Final = (
    Topic(JOURNAL, retention_ms=30 * _DAY_MS, broker_time=True),
    Topic(CATALOG, retention_ms=-1, compacted=True),
    Topic(FLOW_ENDED, retention_ms=30 * _DAY_MS),
)


def event_topic(event_type: str) -> Topic:
    return Topic(event_type, broker_time=True)


def dead_letter_topic(agent: str) -> str:
    return f"{agent}.dlq"


def dead_letters(agent: str) -> Topic:
    # The largest record that a broker takes by default must still fit with what is added to its headers.
    return Topic(dead_letter_topic(agent), retention_ms=30 * _DAY_MS, record_bytes_max=2 * 1024 * 1024)


def command_topic(agent: str) -> str:
    return f"{agent}.commands"


def is_retry_topic(agent: str, topic: str) -> bool:
    return topic.startswith(f"{agent}.retry.")


def redrive_topic(agent: str) -> Topic:
    """The agent's retry topic without a delay. A copy there marks its dead letter as settled, so it lives as long as that."""
    letters = dead_letters(agent)
    return Topic(f"{agent}.retry.0s", retention_ms=letters.retention_ms, record_bytes_max=letters.record_bytes_max)
