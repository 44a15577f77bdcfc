"""Every kind of topic, declared once: its name, partitions and settings."""

from __future__ import annotations

import re
from collections.abc import Iterable
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


_COPY_BYTES_MIN: Final = 2 * 1024 * 1024
ADDED_BYTES_MAX: Final = 64 * 1024
"""What a dead letter or a retry adds to a record's headers."""
LETTER_BYTES_MAX: Final = 32 * 1024 * 1024
"""A larger record is buried without its value, whatever the topics take."""


def dead_letters(agent: str, input_bytes_max: int = 0) -> Topic:
    """`input_bytes_max`: of the largest record that the agent may be given. It must fit with what is added to its headers."""
    limit = max(_COPY_BYTES_MIN, min(input_bytes_max + ADDED_BYTES_MAX, LETTER_BYTES_MAX))
    return Topic(dead_letter_topic(agent), retention_ms=30 * _DAY_MS, record_bytes_max=limit)


def command_topic(agent: str) -> str:
    return f"{agent}.commands"


def commands(agent: str) -> Topic:
    """What the saga coordinator tells the agent. Kept as long as the journal, from which the same commands follow again."""
    return Topic(command_topic(agent), retention_ms=30 * _DAY_MS, broker_time=True)


_UNITS_MS: Final = (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_DELAY: Final = re.compile(r"(0|[1-9][0-9]{0,11})(ms|s|m|h)")


def retry_topic(agent: str, delay_seconds: float, input_bytes_max: int = 0) -> Topic:
    """What waits here is handled no later than the delay after it arrived, so nothing holds up what comes behind it.

    Kept as long as dead letters, and twice as long as it waits, for an agent that is away for a while when its time comes.
    The name says the delay: `30s`, `5m`, `1h`.
    """
    letters = dead_letters(agent, input_bytes_max)
    kept_ms = max(letters.retention_ms, 2 * round(delay_seconds * 1000))
    return Topic(f"{agent}.retry.{_delay_name(delay_seconds)}", retention_ms=kept_ms, record_bytes_max=letters.record_bytes_max)


def retry_delay(agent: str, topic: str) -> float | None:
    """Seconds, of one of the agent's retry topics; None of any other topic."""
    prefix = f"{agent}.retry."
    found = _DELAY.fullmatch(topic.removeprefix(prefix)) if topic.startswith(prefix) else None
    return None if found is None else int(found[1]) * dict(_UNITS_MS)[found[2]] / 1000


def is_retry_topic(agent: str, topic: str) -> bool:
    return retry_delay(agent, topic) is not None


def redrive_topic(agent: str, input_bytes_max: int = 0) -> Topic:
    """The agent's retry topic without a delay. A copy there marks its dead letter as settled, so it lives as long as that."""
    return retry_topic(agent, 0, input_bytes_max)


def own_topics(agent: str, retry_delays: Iterable[float], input_bytes_max: int = 0) -> list[Topic]:
    """What an agent has beside the topics of its events; `retry_delays` in seconds, `input_bytes_max` as in `dead_letters`."""
    delays = [retry_topic(agent, delay, input_bytes_max) for delay in retry_delays]
    return [commands(agent), dead_letters(agent, input_bytes_max), redrive_topic(agent, input_bytes_max), *delays]


def _delay_name(seconds: float) -> str:
    total_ms = round(seconds * 1000)
    unit, size_ms = next((unit, size) for unit, size in _UNITS_MS if total_ms >= size and total_ms % size == 0) if total_ms else ("s", 1000)
    return f"{total_ms // size_ms}{unit}"
