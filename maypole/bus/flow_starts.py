"""Who started a flow: the first `FlowStarted` in the journal wins, for ever.

Two questions need it: did a second root arrive under an idempotency key that means another event, and which
choreography did a flow get that a foreign client started? Flows with a random id are never asked about, so
the common case costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from maypole.bus.partition_counts import partition_counts
from maypole.bus.partitioning import partition_of
from maypole.bus.ports import Delivery, Reader, TopicPartition, Transport
from maypole.schemas.envelope import TYPE, flow_of
from maypole.schemas.identifiers import FlowId
from maypole.schemas.journal import FlowStarted
from maypole.schemas.topics import JOURNAL

log = logging.getLogger("maypole.bus.flow_starts")

_RANDOM: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_STARTED: Final = FlowStarted.event_type.encode()
_READ_SECONDS: Final = 0.5

ReadStarted = Callable[[bytes], FlowStarted]


@dataclass(frozen=True, slots=True)
class FlowStart:
    choreography: str
    digests: dict[str, bytes]
    """Event id of each root to the SHA-256 of its value."""


def may_have_started_before(flow: FlowId) -> bool:
    """Whether anybody else could have started this flow: everybody but the maker of a random id (UUID version 4)."""
    return _RANDOM.fullmatch(flow) is None


class FlowStarts:
    """The first start of every flow, read from the journal once somebody asks.

    Kept in a private temporary database of SQLite's, which stays in memory while small and spills to disk.
    """

    def __init__(self, transport: Transport, partitions: int, read_started: ReadStarted) -> None:
        self._transport = transport
        self._partitions = partitions
        self._read_started = read_started
        self._database = sqlite3.connect("")
        self._database.execute(
            "CREATE TABLE starts (flow TEXT, event TEXT, digest BLOB, choreography TEXT, PRIMARY KEY (flow, event)) WITHOUT ROWID"
        )
        self._next = {TopicPartition(JOURNAL, partition): 0 for partition in range(partitions)}
        self._open = AsyncExitStack()
        self._reader: Reader | None = None
        self._reading = asyncio.Lock()

    async def first(self, flow: FlowId) -> FlowStart | None:
        """The first start of the flow that was in the journal before this call; None when there was none."""
        found = self._find(flow)
        if found is None:
            async with self._reading:
                await self._catch_up(TopicPartition(JOURNAL, partition_of(flow.encode(), self._partitions)))
            found = self._find(flow)
        return found

    def _find(self, flow: FlowId) -> FlowStart | None:
        rows = self._database.execute("SELECT event, digest, choreography FROM starts WHERE flow = ?", (flow,)).fetchall()
        return FlowStart(rows[0][2], {event: digest for event, digest, _ in rows}) if rows else None

    async def _catch_up(self, at: TopicPartition) -> None:
        oldest, end = (await self._transport.cluster.watermarks([at]))[at]
        if oldest == end:
            return
        if self._reader is None:
            self._reader = await self._open.enter_async_context(self._transport.reader(dict(self._next)))
        while self._next[at] < end:
            for record in await self._reader.read(_READ_SECONDS):
                self._keep(record)
                self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1

    def _keep(self, record: Delivery) -> None:
        if record.value is None or (TYPE, _STARTED) not in record.headers:
            return
        flow = flow_of(record.headers)
        if flow is None or self._database.execute("SELECT 1 FROM starts WHERE flow = ?", (flow,)).fetchone():
            return
        try:
            started = self._read_started(record.value)
        except ValueError as error:
            # Not written by any Maypole, so it started nothing.
            position = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            log.warning("flow_starts.record_unreadable", extra={**position, "flow_id": flow, "error": str(error)})
            return
        self._database.executemany(
            "INSERT OR IGNORE INTO starts VALUES (?, ?, ?, ?)",
            [(flow, root.event_id, root.digest, started.choreography) for root in started.roots],
        )

    async def close(self) -> None:
        await self._open.aclose()
        self._database.close()


@asynccontextmanager
async def open_flow_starts(transport: Transport, read_started: ReadStarted) -> AsyncIterator[FlowStarts]:
    partitions = (await partition_counts(transport.cluster, [JOURNAL]))[JOURNAL]
    starts = FlowStarts(transport, partitions, read_started)
    try:
        yield starts
    finally:
        await starts.close()
