"""Whether the first event of a flow that was begun has arrived: a crash may have come between the two."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Final, NamedTuple, TypeVar

from maypole.bus.partitioning import partition_of
from maypole.bus.ports import TopicPartition, Transport
from maypole.schemas.envelope import ID
from maypole.schemas.identifiers import EventId, FlowId
from maypole.services.cli.dead_letters import read_ranges

_CLOCKS_APART_MS: Final = 10 * 60 * 1000
"""Where producers stamp records, their clocks may differ by so much."""

K = TypeVar("K")


class Root(NamedTuple):
    """`since_ms`: it cannot have been written before, milliseconds since the epoch."""

    topic: str
    flow: FlowId
    event_id: EventId
    since_ms: int


async def missing_roots(transport: Transport, roots: Mapping[K, Root]) -> set[K]:
    """Those that are not on their topics. What retention may have deleted is taken for arrived."""
    if not roots:
        return set()
    there = await transport.cluster.topics()
    missing = {key for key, root in roots.items() if root.topic not in there}
    places = {
        key: TopicPartition(root.topic, partition_of(root.flow.encode(), there[root.topic]))
        for key, root in roots.items()
        if key not in missing
    }
    watermarks = await transport.cluster.watermarks(set(places.values())) if places else {}
    starts: dict[TopicPartition, int] = {}
    for at in watermarks:
        since = min(roots[key].since_ms for key, place in places.items() if place == at) - _CLOCKS_APART_MS
        starts.update(await transport.cluster.offsets_at([at], max(0, since)))
    sought = {roots[key].event_id.encode(): key for key, at in places.items() if not 0 < starts[at] <= watermarks[at][0]}
    ranges = {at: (starts[at], end) for at, (_, end) in watermarks.items()} if sought else {}
    async with aclosing(read_ranges(transport, ranges)) as records:
        async for record in records:
            sought.pop(dict(record.headers).get(ID) or b"", None)
            if not sought:
                break
    return missing | set(sought.values())
