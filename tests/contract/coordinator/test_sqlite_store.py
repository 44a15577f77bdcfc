"""The coordinator's file when it cannot be used: each trouble has its own word, and what to do about it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from maypole.services.coordinator.stores.port import Changes, StoreCorrupt, StoreUnavailable
from maypole.services.coordinator.stores.sqlite import open_sqlite_store


async def test_a_folder_that_cannot_be_made_may_be_made_later(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailable, match="expected a folder that can be written"):
        async with open_sqlite_store(tmp_path / "file" / "coordinator" / "sagas.sqlite3"):
            pass


async def test_a_file_that_cannot_be_opened_may_be_later(tmp_path: Path) -> None:
    (tmp_path / "sagas.sqlite3").mkdir()
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        async with open_sqlite_store(tmp_path / "sagas.sqlite3"):
            pass


@pytest.mark.parametrize("damage", ["foreign", "damaged"])
async def test_a_file_that_is_no_store_is_named_with_what_to_do(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "sagas.sqlite3"
    async with open_sqlite_store(path) as store:
        taken = await store.take(0, "1")
        await store.save(0, taken.epoch, 7, Changes((), (), ()))
    content = path.read_bytes()
    path.write_bytes(b"this was never a database" * 400 if damage == "foreign" else content[:4096] + os.urandom(len(content) - 4096))
    with pytest.raises(StoreCorrupt, match=r"expected a coordinator's store.*remove the file: it is folded anew from the journal"):
        async with open_sqlite_store(path) as store:
            await store.take(0, "1")


async def test_an_empty_file_is_a_new_store_because_everything_in_it_can_be_folded_anew(tmp_path: Path) -> None:
    path = tmp_path / "sagas.sqlite3"
    async with open_sqlite_store(path) as store:
        taken = await store.take(0, "1")
        await store.save(0, taken.epoch, 7, Changes((), (), ()))
    os.truncate(path, 0)
    async with open_sqlite_store(path) as store:
        assert (await store.take(0, "1")).next_offset == 0


async def test_a_file_of_a_later_version_is_refused_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "sagas.sqlite3"
    async with open_sqlite_store(path):
        pass
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 1000")
    db.close()
    with pytest.raises(StoreCorrupt, match=r"written by a later Maypole.*the journal is folded anew"):
        async with open_sqlite_store(path):
            pass
