"""Where an agent begins: at the end of its topics, resolved and committed before it announces itself."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Literal

from maypole.bus.partition_counts import partition_counts
from maypole.bus.ports import Cluster, GroupActive, TopicPartition

log = logging.getLogger("maypole.bus.starting_offsets")

StartFrom = Literal["latest", "earliest"]


async def seed_offsets(
    cluster: Cluster, group: str, topics: Collection[str], start: StartFrom, read_before: Collection[str] = frozenset()
) -> None:
    """Give every partition that the group has not read yet a committed offset.

    Of the topics that it has `read_before`, partitions without one were forgotten by the broker (after a week without
    members), or are new: they begin at the oldest record, whatever `start` says, because flows wait for what came meanwhile.
    A group with live members has its offsets, or its members are about to set them: their word counts.
    """
    counts = await partition_counts(cluster, topics)
    partitions = [TopicPartition(topic, partition) for topic in topics for partition in range(counts[topic])]
    known = await cluster.committed(group, partitions)
    missing = [at for at in partitions if at not in known]
    if not missing:
        return
    watermarks = await cluster.watermarks(missing)
    forgotten = [at for at in missing if at.topic in read_before]
    positions = {at: watermarks[at][0 if start == "earliest" or at in forgotten else 1] for at in missing}
    try:
        await cluster.seed(group, positions)
    except GroupActive:
        log.info("offsets.seeded_by_others", extra={"agent": group, "partitions": sorted(missing)})
        return
    if forgotten:
        then = "read from the oldest record; what was done is told again from the ledger"
        log.warning("offsets.forgotten", extra={"agent": group, "partitions": sorted(forgotten), "then": then})
    log.info("offsets.seeded", extra={"agent": group, "start": start, "partitions": sorted(missing)})
