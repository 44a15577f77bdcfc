"""A file that may only be read is told before anything waits for it, and is opened anew once it may be written."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from maypole.bus.ledger.port import LedgerError, LedgerUnavailable
from maypole.bus.stores.sqlite_thread import SqliteThread


class Rights:
    """`mode=ro` does to root what missing rights do to others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mode = "rw"
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE notes (text TEXT)")
        db.close()

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.path}?mode={self.mode}", uri=True, isolation_level=None, check_same_thread=False)


@pytest.fixture
async def rights(tmp_path: Path) -> Rights:
    return Rights(tmp_path / "notes.sqlite3")


@pytest.fixture
async def thread(rights: Rights) -> AsyncIterator[SqliteThread]:
    thread = SqliteThread(rights.path)
    yield thread
    await thread.close()


def write(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO notes VALUES ('x')")


def lose_the_right(db: sqlite3.Connection) -> None:
    """From now on this connection is refused what it writes."""
    db.execute("PRAGMA query_only = 1")


def count(db: sqlite3.Connection) -> int:
    [found] = db.execute("SELECT count(*) FROM notes").fetchone()
    return int(found)


async def test_a_file_that_may_only_be_read_is_refused_when_it_is_opened(rights: Rights, thread: SqliteThread) -> None:
    rights.mode = "ro"
    with pytest.raises(LedgerUnavailable, match="may not be written: give this user the right to"):
        await thread.open(rights.connect)


async def test_a_file_that_may_be_written_again_is(rights: Rights, thread: SqliteThread) -> None:
    await thread.open(rights.connect)
    await thread.call(write)
    rights.mode = "ro"
    await thread.call(lose_the_right)
    for _ in range(3):
        with pytest.raises(LedgerUnavailable, match="may not be written"):
            await thread.call(write)
    rights.mode = "rw"
    await thread.call(write)
    assert await thread.call(count) == 2


async def test_a_file_that_is_gone_is_not_begun_anew(rights: Rights, thread: SqliteThread) -> None:
    await thread.open(rights.connect)
    await thread.call(lose_the_right)
    rights.path.unlink()
    for _ in range(2):
        with pytest.raises(LedgerError, match=str(rights.path)):
            await thread.call(write)
    assert not rights.path.exists()
