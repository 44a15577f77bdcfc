"""The view of what was announced: never older than the question, and never spoilt by what somebody else has written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from maypole.bus.catalog import Catalog, View
from maypole.bus.partitioning import partition_of
from maypole.bus.ports import Delivery, Receipt, Record, TopicPartition
from maypole.schemas.avro import schema_of
from maypole.schemas.event import DEADLINE_SECONDS_MAX
from maypole.schemas.research import ResearchCompleted
from maypole.schemas.topics import CATALOG

SCHEMA = schema_of(ResearchCompleted)
ANNOUNCED = (f"schema/{SCHEMA.derived_id}".encode(), json.dumps({"schema": SCHEMA.text}).encode())


class Log:
    """Two partitions. Nothing is read while it is `away`; `missing` offsets were compacted away."""

    def __init__(self) -> None:
        self.records: dict[int, list[tuple[bytes, bytes]]] = {0: [], 1: []}
        self.missing: set[tuple[int, int]] = set()
        self.back = asyncio.Event()
        self.reads = 0
        self.asked_often = asyncio.Event()

    def append(self, key: bytes, value: bytes) -> Receipt:
        partition = partition_of(key, 2)
        self.records[partition].append((key, value))
        return Receipt(partition, len(self.records[partition]) - 1)

    @property
    def cluster(self) -> Log:
        return self

    async def watermarks(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        return {at: (0, len(self.records[at.partition])) for at in partitions}

    async def publish(self, records: Sequence[Record]) -> Sequence[Receipt]:
        return [self.append(record.key or b"", record.value or b"") for record in records]

    @asynccontextmanager
    async def reader(self, start: Mapping[TopicPartition, int]) -> AsyncIterator[Log]:
        self._positions = dict(start)
        yield self

    async def read(self, wait_seconds: float) -> Sequence[Delivery]:
        await asyncio.sleep(0)
        self.reads += 1
        if self.reads > 200:
            self.asked_often.set()
        if not self.back.is_set():
            return ()
        found = []
        for at, position in self._positions.items():
            for offset in range(position, len(self.records[at.partition])):
                self._positions[at] = offset + 1
                if (at.partition, offset) not in self.missing:
                    key, value = self.records[at.partition][offset]
                    found.append(Delivery(CATALOG, at.partition, offset, 0, key, value, ()))
        return found


@asynccontextmanager
async def following(log: Log) -> AsyncIterator[Catalog]:
    catalog = Catalog(log, log, 2)  # type: ignore[arg-type]  # a stand-in for what the catalog uses of a transport
    task = asyncio.create_task(catalog.follow())
    try:
        yield catalog
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_broker_that_is_away_does_not_make_a_schema_unknown() -> None:
    log = Log()
    log.append(*ANNOUNCED)
    async with following(log) as catalog:
        refreshed = asyncio.create_task(catalog.refresh())
        await log.asked_often.wait()
        assert not refreshed.done(), "nothing was read, so nothing can be said"
        log.back.set()
        await refreshed
        assert catalog.view.schemas == {SCHEMA.derived_id: SCHEMA.text}


async def test_records_that_compaction_removed_at_the_end_are_not_waited_for() -> None:
    log = Log()
    log.back.set()
    log.append(*ANNOUNCED)
    gone = log.append(b"instance/research/one", b"")
    log.missing.add((gone.partition, gone.offset))
    async with following(log) as catalog:
        async with asyncio.timeout(30):
            await catalog.refresh()
        assert catalog.view.schemas == {SCHEMA.derived_id: SCHEMA.text}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (ANNOUNCED[0], b'{"schema": 3}'),
        (ANNOUNCED[0], b'{"schema": "\\"string\\""}'),
        (ANNOUNCED[0], b"[" * 100_000),
        (b"instance/research/one", b'{"seen_at": "2026-01-01T00:00:00"}'),
        (b"\xff", b"{}"),
        (b"nobody/knows", b"{}"),
    ],
)
def test_what_cannot_be_read_leaves_what_was_known(key: bytes, value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    view = View()
    view.apply(Delivery(CATALOG, 0, 0, 0, *ANNOUNCED, ()))
    view.apply(Delivery(CATALOG, 0, 1, 0, key, value, ()))
    assert view.schemas == {SCHEMA.derived_id: SCHEMA.text}
    assert view.alive("research", 0.0) == set()
    assert "catalog.record_refused" in caplog.text


@pytest.mark.parametrize(
    ("declared", "seconds"),
    [
        ({"timeout_seconds": 90}, 90.0),
        ({"timeout_seconds": float("inf")}, DEADLINE_SECONDS_MAX),
        ({"timeout_seconds": float("nan")}, 0.0),
        ({"timeout_seconds": "long"}, 0.0),
        ({}, 0.0),
    ],
)
def test_how_long_an_attempt_may_take_is_what_its_agent_declares(declared: dict[str, object], seconds: float) -> None:
    view = View(agents={"last": {"name": "last", "subscriptions": [{"on": "x.y"}, {"on": ["c.d", "a.b"], **declared}]}})
    assert view.attempt_seconds("last", "a.b+c.d") == seconds
    assert view.attempt_seconds("last", "x.y") == view.attempt_seconds("nobody", "a.b+c.d") == 0.0
