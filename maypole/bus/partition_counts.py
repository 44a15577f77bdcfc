"""How many partitions topics have, as soon as whichever broker is asked has heard of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

from maypole.bus.ports import Cluster

_HEARD_SECONDS: Final = 15.0
_PAUSE_SECONDS: Final = 0.05


class TopicsMissing(LookupError):
    """Topics that must be there are not."""


async def partition_counts(cluster: Cluster, topics: Collection[str]) -> Mapping[str, int]:
    """Raises `TopicsMissing` naming the topics that are still missing after a while.

    A topic that one broker has just made is not known to the others yet, and any of them may answer.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + _HEARD_SECONDS
    while True:
        counts = await cluster.topics()
        missing = sorted(set(topics) - counts.keys())
        if not missing:
            return {topic: counts[topic] for topic in topics}
        if loop.time() >= until:
            raise TopicsMissing(
                f"expected the topics {', '.join(missing)} on the broker, found none of that name; `maypole topics apply` creates them"
            )
        await asyncio.sleep(_PAUSE_SECONDS)
