"""What only a file can suffer: a second process, a full disk, a lock, damage, a folder that cannot be written."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from maypole.bus.ledger.port import Ask, LedgerCorrupt, LedgerInUse, LedgerUnavailable
from maypole.bus.ledger.transitions import UNWRITTEN, Finish, Retry, Verdict
from maypole.bus.stores import sqlite, sqlite_schema
from maypole.bus.stores.sqlite import open_sqlite_ledger
from maypole.schemas.identifiers import StepId
from tests.contract.ledger.stores import PLACE, Clock, ask, sqlite_world, step

HOLDER = """
import asyncio, sys
from pathlib import Path
from maypole.bus.stores.sqlite import open_sqlite_ledger
async def main():
    async with open_sqlite_ledger(Path(sys.argv[1]), "holder", lambda: 1):
        print("open", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_second_process_is_refused_with_the_pid_of_the_first_even_when_that_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, str(path), stdout=asyncio.subprocess.PIPE)
    try:
        assert holder.stdout is not None and await holder.stdout.readline() == b"open\n"
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(LedgerInUse, match=f"held by process {holder.pid}"):
            async with open_sqlite_ledger(path, "two", Clock()):
                pass
    finally:
        holder.kill()
        await holder.wait()
    async with open_sqlite_ledger(path, "two", Clock()) as ledger:
        assert (await ask(ledger, "s", Finish(UNWRITTEN))).verdict is Verdict.RECORDED


async def test_a_second_owner_in_the_same_process_is_refused_too(tmp_path: Path) -> None:
    world = sqlite_world(tmp_path)
    async with world.open("one"):
        with pytest.raises(LedgerInUse, match=f"held by process {os.getpid()}"):
            async with world.open("two"):
                pass


async def test_a_file_that_another_program_has_locked_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.05)
    world = sqlite_world(tmp_path)
    async with world.open("one") as ledger:
        await ask(ledger, "before", Finish(UNWRITTEN))
        other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable, match="another program holds the file locked"):
            await ask(ledger, "s", Finish(UNWRITTEN))
        other.close()
        assert (await ask(ledger, "s", Finish(UNWRITTEN))).verdict is Verdict.RECORDED


async def test_a_full_disk_refuses_whole_batches_and_the_next_one_after_room_was_made_stands(tmp_path: Path) -> None:
    world = sqlite_world(tmp_path)
    async with world.open("one") as ledger:
        await ask(ledger, "before", Finish(UNWRITTEN), b"kept")
        await ledger._thread.call(lambda db: None)  # type: ignore[attr-defined]
        database = ledger._thread._db  # type: ignore[attr-defined]
        database.execute("PRAGMA max_page_count = 40")
        batch = [Ask(step(number), Finish(UNWRITTEN), PLACE, os.urandom(2000)) for number in range(200)]
        with pytest.raises(LedgerUnavailable, match="disk is full"):
            await ledger.ask(batch)
        found = await ledger.rows([step("before"), *(each.step_id for each in batch)])
        assert set(found) == {step("before")}
        database.execute("PRAGMA max_page_count = 1000000")
        assert {answer.verdict for answer in await ledger.ask(batch)} == {Verdict.RECORDED}


async def test_what_a_refused_batch_would_have_changed_is_not_believed(tmp_path: Path) -> None:
    world = sqlite_world(tmp_path)
    async with world.open("one") as ledger:
        database = ledger._thread._db  # type: ignore[attr-defined]
        database.execute("PRAGMA max_page_count = 40")
        begins = [Ask(step(number), world.begin(), PLACE, os.urandom(2000)) for number in range(200)]
        with pytest.raises(LedgerUnavailable, match="disk is full"):
            await ledger.ask(begins)
        database.execute("PRAGMA max_page_count = 1000000")
        assert await ledger.rows([each.step_id for each in begins]) == {}
        assert {(answer.verdict, answer.row and answer.row.step.attempt) for answer in await ledger.ask(begins)} == {(Verdict.RUN, 1)}


async def test_a_call_that_fails_does_not_take_those_down_that_come_after_it(tmp_path: Path) -> None:
    world = sqlite_world(tmp_path)
    async with world.open("one") as ledger:
        with pytest.raises(ValueError, match="hexadecimal"):
            await ledger.rows([StepId("not an id")])
        assert (await ask(ledger, "s", Finish(UNWRITTEN))).verdict is Verdict.RECORDED


@pytest.mark.parametrize("damage", [b"this was never a database" * 400, None], ids=["foreign", "damaged"])
async def test_a_file_that_is_no_ledger_is_refused_for_good(tmp_path: Path, damage: bytes | None) -> None:
    world, path = sqlite_world(tmp_path), tmp_path / "ledger.sqlite3"
    async with world.open("one") as ledger:
        await ledger.ask([Ask(step(number), Finish(UNWRITTEN), PLACE, b"x" * 1000) for number in range(500)])
    content = path.read_bytes()
    path.write_bytes(damage or content[:4096] + os.urandom(len(content) - 4096))
    with pytest.raises(LedgerCorrupt, match=r"ledger\.sqlite3: expected a ledger"):
        async with world.open("two") as ledger:
            await ledger.rows(list(map(step, range(500))))


def _remove(path: Path) -> None:
    path.unlink()


def _remove_everything(path: Path) -> None:
    shutil.rmtree(path.parent)


def _remove_log(path: Path) -> None:
    path.with_name("ledger.sqlite3-wal").unlink()


def _replace(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.replace(path)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("harm", [_remove, _remove_everything, _remove_log, _replace, _empty], ids=lambda harm: harm.__name__)
async def test_a_file_that_is_removed_or_replaced_while_it_is_worked_on_takes_no_more_rows(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = tmp_path / "agent" / "ledger.sqlite3"
    async with open_sqlite_ledger(path, "one", Clock()) as ledger:
        await ledger.ask([Ask(step(number), Finish(UNWRITTEN), PLACE, b"x" * 1000) for number in range(500)])
        harm(path)
        with pytest.raises(LedgerCorrupt, match=r"ledger\.sqlite3(-wal)?: expected"):
            await ask(ledger, "s", Finish(UNWRITTEN))


@pytest.mark.parametrize("found", ["no file", "an empty file"])
async def test_where_a_ledger_was_kept_one_that_is_gone_is_no_new_one(tmp_path: Path, found: str) -> None:
    world, path = sqlite_world(tmp_path), tmp_path / "ledger.sqlite3"
    async with world.open("one") as ledger:
        await ask(ledger, "s", Finish(UNWRITTEN))
    if found == "no file":
        path.unlink()
    else:
        os.truncate(path, 0)
    for _ in range(2):
        with pytest.raises(LedgerCorrupt, match=rf"expected the ledger that was kept here, found {found}.*ledger\.sqlite3\.lock"):
            async with world.open("two"):
                pass
    path.with_name("ledger.sqlite3.lock").unlink()
    async with world.open("three") as ledger:
        assert (await ask(ledger, "s", Finish(UNWRITTEN))).verdict is Verdict.RECORDED


async def test_a_ledger_whose_first_owner_died_before_it_had_tables_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = sqlite_world(tmp_path)
    monkeypatch.setattr(sqlite, "migrate", partial(sqlite_schema.migrate, migrations=[["no statement"]]))
    with pytest.raises(LedgerCorrupt):
        async with world.open("one"):
            pass
    monkeypatch.undo()
    async with world.open("two") as ledger:
        assert (await ask(ledger, "s", Finish(UNWRITTEN))).verdict is Verdict.RECORDED


async def test_a_folder_that_cannot_be_made_may_be_made_later(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LedgerUnavailable, match="expected a folder that can be written"):
        async with open_sqlite_ledger(tmp_path / "file" / "ledger.sqlite3", "one", Clock()):
            pass


async def test_a_database_that_cannot_be_opened_or_written_may_be_later(tmp_path: Path) -> None:
    world = sqlite_world(tmp_path)
    (tmp_path / "ledger.sqlite3").mkdir()
    with pytest.raises(LedgerUnavailable, match="cannot be opened"):
        async with world.open("one"):
            pass
    (tmp_path / "ledger.sqlite3").rmdir()
    async with world.open("one") as ledger:
        ledger._thread._db.execute("PRAGMA query_only = 1")  # type: ignore[attr-defined]
        with pytest.raises(LedgerUnavailable, match="may not be written"):
            await ask(ledger, "s", Finish(UNWRITTEN))


async def test_tables_of_a_later_version_are_refused_and_say_why(tmp_path: Path) -> None:
    world = sqlite_world(tmp_path)
    async with world.open("one"):
        pass
    db = sqlite3.connect(tmp_path / "ledger.sqlite3")
    db.execute(f"PRAGMA user_version = {len(sqlite_schema.MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(LedgerCorrupt, match="written by a later Maypole"):
        async with world.open("two"):
            pass


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = sqlite_world(tmp_path)
    async with world.open("one") as ledger:
        await ask(ledger, "s", Finish(UNWRITTEN), b"kept")
    more = (*sqlite_schema.MIGRATIONS, ("ALTER TABLE ended ADD COLUMN note TEXT", "no statement"))
    monkeypatch.setattr(sqlite, "migrate", partial(sqlite_schema.migrate, migrations=more))
    with pytest.raises(LedgerCorrupt):
        async with world.open("two"):
            pass
    monkeypatch.undo()
    async with world.open("three") as ledger:
        assert (await ledger.rows([step("s")]))[step("s")].outcome == b"kept"


async def test_rows_are_found_wherever_the_sweeps_have_put_their_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_SWEEP_EVERY", 50)
    world = sqlite_world(tmp_path)
    everything = list(map(step, range(2_000)))
    async with world.open("one") as ledger:
        for at in range(0, 2_000, 100):
            await ledger.ask([Ask(each, Finish(UNWRITTEN), PLACE) for each in everything[at : at + 100]])
        assert len(await ledger.rows(everything)) == 2_000
        world.clock.now_ms += 1
        assert await ledger.forget(world.clock.now_ms, 1_500) == 1_500
        again = await ledger.ask([Ask(each, Finish(UNWRITTEN), PLACE) for each in everything])
    assert [answer.verdict for answer in again] == [Verdict.RECORDED] * 1_500 + [Verdict.REPUBLISH] * 500


async def test_the_entries_of_forgotten_rows_go_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_SWEEP_EVERY", 50)
    monkeypatch.setattr(sqlite, "_CLEAN_EVERY", 500)
    world = sqlite_world(tmp_path)
    async with world.open("one") as ledger:
        await ledger.ask([Ask(step(number), Finish(UNWRITTEN), PLACE) for number in range(2_000)])
        world.clock.now_ms += 1
        for at in range(2_000, 6_000, 50):
            await ledger.ask([Ask(step(number), Finish(UNWRITTEN), PLACE) for number in range(at, at + 50)])
            await ledger.forget(world.clock.now_ms, 100)
    db = sqlite3.connect(tmp_path / "ledger.sqlite3")
    [entries] = db.execute("SELECT (SELECT count(*) FROM recent) + (SELECT count(*) FROM old)").fetchone()
    [rows] = db.execute("SELECT count(*) FROM ended").fetchone()
    db.close()
    assert rows == 4_000 and rows <= entries < rows + 500


async def test_steps_that_were_forgotten_and_come_again_find_no_trace_of_themselves(tmp_path: Path) -> None:
    world = sqlite_world(tmp_path)
    async with world.open("one") as ledger:
        await ledger.ask([Ask(step(number), Finish(UNWRITTEN), PLACE) for number in range(10)])
        world.clock.now_ms += 1
        await ledger.forget(world.clock.now_ms, 100)
    async with world.open("two") as ledger:
        # Their numbers begin anew as well, so each gets the one that it had.
        again = await ledger.ask([Ask(step(number), Finish(UNWRITTEN), PLACE) for number in range(10)])
        assert {answer.verdict for answer in again} == {Verdict.RECORDED}


async def test_a_call_that_was_cancelled_leaves_the_others_their_answers(tmp_path: Path) -> None:
    world = sqlite_world(tmp_path)
    async with world.open("one") as ledger:
        calls = [asyncio.create_task(ask(ledger, number, Finish(UNWRITTEN))) for number in range(3)]
        await asyncio.sleep(0)
        calls[1].cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(done[1], asyncio.CancelledError)
        assert len(await ledger.rows(list(map(step, range(3))))) == 3


async def test_rows_of_an_earlier_version_are_of_the_first_generation(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    db = sqlite3.connect(path)
    for statement in sqlite_schema.MIGRATIONS[0]:
        db.execute(statement)
    columns = (
        "(id, state, attempt, owner, lease_until_ms, alive_until_ms, acts, effect, flow_id, topic, partition, updated_ms, outcome, undo)"
    )
    for table, number, state in (("started", 1, 0), ("ended", 2, 2)):
        key = bytes.fromhex(step(number).replace("-", ""))
        line = (key, state, 3, "", 0, 0, 1, 1, *PLACE[:1], *PLACE.at, 0, b"outcome", b"input")
        db.execute(f"INSERT INTO {table} {columns} VALUES ({', '.join('?' * 14)})", line)
    db.execute("INSERT INTO recent VALUES (?, 1)", (int.from_bytes(bytes.fromhex(step(2).replace("-", ""))[:8], "big", signed=True),))
    db.execute("PRAGMA user_version = 1")
    db.commit()
    db.close()
    async with open_sqlite_ledger(path, "one", Clock()) as ledger:
        rows = await ledger.rows([step(1), step(2)])
        assert {row.step.generation for row in rows.values()} == {1} and len(rows) == 2
        again = await ask(ledger, 2, Retry(2), b"place")
        assert again.row is not None and (again.row.step.generation, again.row.undo) == (2, b"input")
