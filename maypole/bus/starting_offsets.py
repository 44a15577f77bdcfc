"""Where an agent begins: at the end of its topics, resolved and committed before it announces itself."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Literal

from maypole.bus.partition_counts import partition_counts
from maypole.bus.ports import Cluster, GroupActive, TopicPartition

log = logging.getLogger("maypole.bus.starting_offsets")

StartFrom = Literal["latest", "earliest"]


async def seed_offsets(cluster: Cluster, group: str, topics: Collection[str], start: StartFrom) -> None:
    """Give every partition that the group has not read yet a committed offset.

    A group with live members has its offsets, or its members are about to set them: their word counts.
    """
    counts = await partition_counts(cluster, topics)
    partitions = [TopicPartition(topic, partition) for topic in topics for partition in range(counts[topic])]
    known = await cluster.committed(group, partitions)
    missing = [at for at in partitions if at not in known]
    if not missing:
        return
    watermarks = await cluster.watermarks(missing)
    positions = {at: watermarks[at][0 if start == "earliest" else 1] for at in missing}
    try:
        await cluster.seed(group, positions)
    except GroupActive:
        log.info("offsets.seeded_by_others", extra={"agent": group, "partitions": sorted(missing)})
        return
    log.info("offsets.seeded", extra={"agent": group, "start": start, "partitions": sorted(missing)})
