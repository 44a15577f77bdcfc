"""Commit is last: one task commits the positions that moved; what moves meanwhile collects for the next commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from maypole.bus.ports import Source, TopicPartition
from maypole.bus.work import Ownership


async def commit_progress(
    source: Source, owned: Mapping[TopicPartition, Ownership], moved: asyncio.Event, committed: Callable[[], None]
) -> None:
    """Until cancelled. `owned` is looked at anew each time that `moved` is set; `committed` is called after each commit."""
    while True:
        await moved.wait()
        moved.clear()
        pending = {at: ownership for at, ownership in owned.items() if ownership.watermark.uncommitted}
        positions = {at: ownership.watermark.position for at, ownership in pending.items() if ownership.watermark.position is not None}
        if positions:
            await source.commit(positions)
            for at, ownership in pending.items():
                ownership.watermark.committed = positions[at]
            committed()
