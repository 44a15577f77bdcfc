"""What retention deleted before a group read it: an agent that was away for too long, said loudly and counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from maypole.bus.ports import Expired

_log = logging.getLogger("maypole.bus.missed")


class Missed:
    """Of one transport. `records` counts by group; a topic that was made anew counts none, because nobody can tell."""

    def __init__(self, told: Callable[[Expired], None] | None = None) -> None:
        self.records: Counter[str] = Counter()
        self._told = told

    def add(self, expired: Expired) -> None:
        records = max(0, expired.oldest - expired.wanted)
        self.records[expired.group] += records
        topic, partition = expired.partition
        _log.error(
            "bus.records_expired",
            extra={
                "group": expired.group, "topic": topic, "partition": partition, "wanted": expired.wanted, "oldest": expired.oldest,
                "records": records if expired.wanted <= expired.oldest else "unknown: the topic was made anew or cut short",
            },
        )  # fmt: skip
        if self._told is not None:
            self._told(expired)
