"""How large a value may be on each topic. A step learns it before it is written down; afterwards it could only be repeated for ever."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from maypole.bus.ports import Cluster, Record
from maypole.schemas.topics import JOURNAL

VALUE_BYTES_MAX: Final = 900_000
"""A little under the broker's usual limit of 1 MiB for a record with its headers."""
_BESIDE_BYTES: Final = 8 * 1024
"""For key, headers and what the broker adds, where a topic allows less than usual. It is enough: of what comes from outside a record
carries the flow's id twice, and the ids of its event and trace, its business key and `tracestate` once, each of at most
`TEXT_BYTES_MAX` bytes or left out; all else (names of headers, agent and topic, ids of our own, times) stays below 2 KiB."""


_AROUND_BYTES: Final = 128
"""At most: a batch of one record, without key, value and headers."""
_AROUND_HEADER_BYTES: Final = 10


async def record_bytes_max(cluster: Cluster, topics: Collection[str]) -> Mapping[str, int]:
    """What the broker says of each topic as `max.message.bytes`; those of which it does not tell are left out.

    The topics must be there. A change is noticed at the next start.
    """
    told = {topic: (await cluster.topic_config(topic)).get("max.message.bytes") for topic in topics}
    return {topic: int(limit) for topic, limit in told.items() if limit is not None}


def value_bytes_max(limits: Mapping[str, int], topics: Collection[str]) -> Mapping[str, int]:
    """How many bytes a value may have on each topic; `limits` as `record_bytes_max` tells them."""
    return {topic: min(VALUE_BYTES_MAX, max(0, limits.get(topic, VALUE_BYTES_MAX + _BESIDE_BYTES) - _BESIDE_BYTES)) for topic in topics}


def input_bytes_max(limits: Mapping[str, int], topics: Collection[str]) -> int:
    """The largest record that may lie on these topics. One that is not there yet will be made with the broker's own limit, which
    the journal has, too. 0 where nobody tells."""
    usual = limits.get(JOURNAL, 0)
    return max((limits.get(topic, usual) for topic in topics), default=usual)


def bytes_of(record: Record) -> int:
    """No less than what a broker counts of a record that is sent alone."""
    headers = sum(len(name.encode()) + len(value or b"") + _AROUND_HEADER_BYTES for name, value in record.headers)
    return _AROUND_BYTES + len(record.key or b"") + len(record.value or b"") + headers
