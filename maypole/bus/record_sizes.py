"""How large a value may be on each topic. A step learns it before it is written down; afterwards it could only be repeated for ever."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from maypole.bus.ports import Cluster

VALUE_BYTES_MAX: Final = 900_000
"""A little under the broker's usual limit of 1 MiB for a record with its headers."""
_BESIDE_BYTES: Final = 8 * 1024
"""For key, headers and what the broker adds, where a topic allows less than usual. It is enough: of what comes from outside a record
carries the flow's id twice, and the ids of its event and trace, its business key and `tracestate` once, each of at most
`TEXT_BYTES_MAX` bytes or left out; all else (names of headers, agent and topic, ids of our own, times) stays below 2 KiB."""


async def value_bytes_max(cluster: Cluster, topics: Collection[str]) -> Mapping[str, int]:
    """What the broker says of each topic that is there, as `max.message.bytes`; a change is noticed at the next start."""
    sizes = {}
    for topic in topics:
        told = (await cluster.topic_config(topic)).get("max.message.bytes")
        sizes[topic] = VALUE_BYTES_MAX if told is None else min(VALUE_BYTES_MAX, max(0, int(told) - _BESIDE_BYTES))
    return sizes
