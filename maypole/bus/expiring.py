"""Joins whose time runs: when it is up the journal is told, and nothing is decided here.

What follows comes back as a command, so that a part which was journaled in time is never late because somebody was down.
Whoever notices tells it; told twice, it is one thing.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from maypole.bus.journal import JournalRecords
from maypole.bus.ledger.port import Join, Joins, JoinState
from maypole.bus.memos import Patiently
from maypole.bus.parts import envelope_of, taken
from maypole.bus.ports import Record, Sink, TopicPartition
from maypole.schemas.envelope import lineage, rfc3339
from maypole.schemas.identifiers import root_traceparent
from maypole.schemas.journal import DeadlineFired

log = logging.getLogger("maypole.bus.expiring")

_LOOK_AT_CLOCK_SECONDS: Final = 60.0
"""A clock that is set forward is noticed so soon."""


class Expiring:
    """Of one agent."""

    def __init__(self, agent: str, ledger: Joins, patiently: Patiently, sink: Sink, now: Callable[[], float]) -> None:
        """`now` gives seconds since the epoch."""
        self._agent = agent
        self._ledger = ledger
        self._patiently = patiently
        self._sink = sink
        self._now = now
        self._records = JournalRecords(f"/agents/{agent}")
        self._due: list[tuple[int, str]] = []
        self._watched: set[str] = set()
        self._sooner = asyncio.Event()

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Take over the joins that wait there."""
        for join in await self._patiently(lambda: self._ledger.open_joins(partitions)):
            self.watch(join)

    def watch(self, join: Join) -> None:
        """It waits for more parts. One that may wait for ever is not watched."""
        due_ms = min((due for part in join.parts.values() if (due := taken(part.body).due_ms)), default=0)
        if due_ms and join.join_id not in self._watched:
            self._watched.add(join.join_id)
            heapq.heappush(self._due, (due_ms, join.join_id))
            self._sooner.set()

    def forget(self, join_id: str) -> None:
        """It waits no longer."""
        self._watched.discard(join_id)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._sooner.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_left()):
                    await self._sooner.wait()
            late = self._taken_due()
            if late:
                await self._tell(late)

    def _seconds_left(self) -> float | None:
        if not self._due:
            return None
        # A moment more, so that rounding never makes it wait for nothing over and over.
        return min(max(0.0, self._due[0][0] / 1000 - self._now() + 0.001), _LOOK_AT_CLOCK_SECONDS)

    def _taken_due(self) -> dict[str, int]:
        now_ms = self._now() * 1000
        late = {}
        while self._due and self._due[0][0] <= now_ms:
            due_ms, join_id = heapq.heappop(self._due)
            if join_id in self._watched:
                self._watched.discard(join_id)
                late[join_id] = due_ms
        return late

    async def _tell(self, late: Mapping[str, int]) -> None:
        # The ledger's word counts: another instance may have seen the last part.
        found = await self._patiently(lambda: self._ledger.joins(late.keys()))
        records = [self._fired(join, late[join.join_id]) for join in found.values() if join.state is JoinState.OPEN]
        if records:
            await self._sink.publish(records)

    def _fired(self, join: Join, due_ms: int) -> Record:
        parts = [taken(part.body).delivery for part in join.parts.values()]
        first = min(parts, key=lambda part: part.timestamp_ms)
        envelope = envelope_of(first)
        assert envelope is not None, "what was put into the join had an identity"
        flow = envelope.flow_id.encode()
        log.warning(
            "join.time_up",
            extra={"agent": self._agent, "flow_id": envelope.flow_id, "step_id": join.join_id, "parts": sorted(join.parts)},
        )
        common = lineage(
            flow_id=flow,
            time=rfc3339(self._now() * 1000).encode(),
            state_version=envelope.state_version + 1,
            choreography=envelope.choreography.encode(),
            causation_id=envelope.event_id.encode(),
            business_key=envelope.business_key,
        )
        body = DeadlineFired(scope=join.join_id, due=datetime.fromtimestamp(due_ms / 1000, UTC))
        parent = envelope.traceparent or root_traceparent(envelope.flow_id)
        return self._records.record(body, join.join_id, flow, parent, envelope.tracestate, common)
