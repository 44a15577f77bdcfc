"""What every store of a coordinator does: one suite for memory, SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4
from zlib import crc32

import pytest

from maypole.bus.ports import Delivery
from maypole.schemas.identifiers import FlowId
from maypole.schemas.topics import JOURNAL
from maypole.services.coordinator.stores.memory import MemoryStore
from maypole.services.coordinator.stores.port import Changes, Row, Store, Superseded
from maypole.services.coordinator.stores.postgres import open_postgres_store
from maypole.services.coordinator.stores.sqlite import open_sqlite_store

Open = Callable[[], AbstractAsyncContextManager[Store]]
ONE, TWO, THREE = FlowId("one"), FlowId("two"), FlowId("three")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Each call is another coordinator on the same store."""
    if request.param == "memory":
        kept = MemoryStore()

        @asynccontextmanager
        async def memory() -> AsyncIterator[Store]:
            yield kept

        return memory
    if request.param == "sqlite":
        return lambda: open_sqlite_store(tmp_path / "sagas.sqlite3")
    address, cluster = request.getfixturevalue("postgres").address, uuid4().hex
    return lambda: open_postgres_store(address, cluster)


@pytest.fixture
async def store(opening: Open) -> AsyncIterator[Store]:
    async with opening() as store:
        yield store


def row(flow_id: FlowId, *, due_ms: int | None = None, ended_ms: int | None = None, pending: bool = False, state: bytes = b"{}") -> Row:
    return Row(flow_id, state, b"\x00\xff", "customer 7", "", due_ms, ended_ms, pending, crc32(flow_id.encode()))


def written(*rows: Row) -> Changes:
    return Changes(rows, (), ())


def record(offset: int, value: bytes | None = b"\x00value") -> Delivery:
    return Delivery(JOURNAL, 0, offset, 1000 + offset, b"\xffkey", value, [("ce_type", b"x"), ("none", None), ("ce_type", b"y")])


async def test_the_next_owner_finds_states_and_offset_as_they_were_saved(opening: Open) -> None:
    async with opening() as first:
        epoch, next_offset = await first.take(0, "1")
        assert next_offset == 0
        await first.save(0, epoch, 7, written(row(ONE, due_ms=5), row(TWO, ended_ms=9, pending=True, state=b"\x00bytes")))
    async with opening() as second:
        assert await second.take(0, "1") == (epoch + 1, 7)
        assert await second.load(0, [ONE, TWO, THREE]) == {
            ONE: row(ONE, due_ms=5),
            TWO: row(TWO, ended_ms=9, pending=True, state=b"\x00bytes"),
        }


async def test_a_later_row_replaces_an_earlier_one(store: Store) -> None:
    epoch, _ = await store.take(0, "1")
    await store.save(0, epoch, 1, written(row(ONE, due_ms=5, pending=True)))
    await store.save(0, epoch, 2, written(row(ONE, state=b"more", ended_ms=3)))
    assert await store.load(0, [ONE]) == {ONE: row(ONE, state=b"more", ended_ms=3)}
    assert await store.next_due(0) is None
    assert await store.pending(0) == []


@pytest.mark.parametrize(
    "change",
    [
        {"state": b"[]"}, {"traces": b""}, {"subject": "customer 8"}, {"subject": None}, {"told": "committed"}, {"due_ms": 8},
        {"due_ms": None}, {"ended_ms": 9}, {"pending": True}, {"state": b"[]", "due_ms": None, "ended_ms": 9, "pending": True},
    ],
)  # fmt: skip
async def test_whatever_has_changed_of_a_row_is_kept(store: Store, change: dict[str, Any]) -> None:
    epoch, _ = await store.take(0, "1")
    before = row(ONE, due_ms=7)
    for after in (before, before._replace(**change), before):
        await store.save(0, epoch, 1, written(after))
        assert await store.load(0, [ONE]) == {ONE: after}
        assert await store.next_due(0) == after.due_ms
        assert await store.pending(0) == ([ONE] if after.pending else [])


async def test_rows_may_be_made_while_they_are_written_and_once_more_when_the_call_is_repeated(store: Store) -> None:
    class Made:
        def __iter__(self) -> Iterator[Row]:
            return (row(flow, due_ms=5) for flow in (ONE, TWO))

    epoch, _ = await store.take(0, "1")
    changes = Changes(Made(), (), ())
    for _ in range(2):
        await store.save(0, epoch, 1, changes)
        assert await store.load(0, [ONE, TWO]) == {ONE: row(ONE, due_ms=5), TWO: row(TWO, due_ms=5)}


async def test_who_was_superseded_changes_nothing(opening: Open) -> None:
    async with opening() as first, opening() as second:
        before, _ = await first.take(0, "1")
        await first.save(0, before, 3, written(row(ONE)))
        after, _ = await second.take(0, "1")
        with pytest.raises(Superseded, match="partition 0"):
            await first.save(0, before, 9, Changes([row(TWO)], [(THREE, "", record(4))], [ONE]))
        assert await second.load(0, [ONE, TWO]) == {ONE: row(ONE)}
        assert await second.parked(0) == []
        await second.save(0, after, 4, written(row(TWO)))
        assert await first.take(0, "1") == (after + 1, 4)


async def test_one_partition_that_was_taken_over_does_not_hold_up_another(opening: Open) -> None:
    async with opening() as first, opening() as second:
        zero, _ = await first.take(0, "1")
        one, _ = await first.take(1, "1")
        await second.take(0, "1")
        with pytest.raises(Superseded):
            await first.save(0, zero, 9, written())
        await first.save(1, one, 5, written(row(ONE)))
        assert (await second.take(1, "1")).next_offset == 5


async def test_partitions_are_apart(store: Store) -> None:
    zero, _ = await store.take(0, "1")
    one, _ = await store.take(1, "1")
    await store.save(0, zero, 1, Changes([row(ONE, due_ms=1, pending=True)], [(TWO, "", record(1))], ()))
    await store.save(1, one, 2, written(row(ONE, due_ms=9)))
    assert await store.load(1, [ONE]) == {ONE: row(ONE, due_ms=9)}
    assert (await store.pending(1), await store.parked(1), await store.next_due(1)) == ([], [], 9)
    assert await store.due(1, 5, 10) == []


async def test_another_version_of_the_engine_begins_anew(store: Store) -> None:
    epoch, _ = await store.take(0, "1")
    await store.save(0, epoch, 7, Changes([row(ONE, due_ms=1)], [(TWO, "", record(1))], ()))
    taken = await store.take(0, "2")
    assert taken.next_offset == 0
    assert taken.epoch > epoch
    assert await store.load(0, [ONE]) == {}
    assert await store.parked(0) == []


async def test_what_is_due_comes_in_order_and_bounded(store: Store) -> None:
    epoch, _ = await store.take(0, "1")
    await store.save(0, epoch, 1, written(row(ONE, due_ms=30), row(TWO, due_ms=10), row(THREE)))
    assert await store.next_due(0) == 10
    assert await store.due(0, 9, 10) == []
    assert await store.due(0, 30, 10) == [TWO, ONE]
    assert await store.due(0, 30, 1) == [TWO]


async def test_parked_records_come_back_as_they_were_until_they_are_released(store: Store) -> None:
    epoch, _ = await store.take(0, "1")
    await store.save(0, epoch, 3, Changes((), [(ONE, "hash", record(1)), (TWO, "", record(2, None))], ()))
    await store.save(0, epoch, 6, Changes((), [(ONE, "hash", record(5))], ()))
    assert sorted(await store.parked(0)) == [(ONE, "hash", 1001, 2), (TWO, "", 1002, 1)]
    assert await store.parked_records(0, ONE) == [record(1), record(5)]
    assert await store.parked_records(0, TWO) == [record(2, None)]
    await store.save(0, epoch, 6, Changes([row(ONE)], (), [ONE]))
    assert await store.parked_records(0, ONE) == []
    assert [each.flow_id for each in await store.parked(0)] == [TWO]


async def test_a_flow_that_was_started_after_its_first_records_waits_for_its_choreography_alone(store: Store) -> None:
    epoch, _ = await store.take(0, "1")
    await store.save(0, epoch, 2, Changes((), [(ONE, "", record(1))], ()))
    await store.save(0, epoch, 3, Changes((), [(ONE, "hash", record(2))], ()))
    assert await store.parked(0) == [(ONE, "hash", 1001, 2)]


async def test_flows_that_ended_long_ago_are_forgotten_some_at_a_time(store: Store) -> None:
    epoch, _ = await store.take(0, "1")
    await store.save(0, epoch, 1, written(row(ONE, ended_ms=5), row(TWO, ended_ms=6), row(THREE)))
    assert await store.forget(0, 5, 10) == 0
    assert await store.forget(0, 7, 1) == 1
    assert await store.forget(0, 7, 10) == 1
    assert set(await store.load(0, [ONE, TWO, THREE])) == {THREE}


async def test_many_flows_are_loaded_at_once(store: Store) -> None:
    epoch, _ = await store.take(0, "1")
    rows = [row(FlowId(f"flow {n}"), due_ms=n) for n in range(1200)]
    await store.save(0, epoch, 1, written(*rows))
    assert await store.load(0, [each.flow_id for each in rows]) == {each.flow_id: each for each in rows}
