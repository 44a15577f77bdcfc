"""One thread that owns a SQLite connection, and group commits: all calls that wait at the same time share one transaction."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from maypole.bus.ledger.port import LedgerCorrupt, LedgerError, LedgerUnavailable

_Answer = TypeVar("_Answer")
Work = Callable[[sqlite3.Connection], _Answer]


class SqliteThread:
    """Belongs to one event loop. Work reads and writes inside the transaction, and never ends it."""

    def __init__(self, path: Path, due: Callable[[], Work[None] | None], undone: Callable[[], None]) -> None:
        """`due` names what is to be tidied; that is done after the answers of a group were given.

        `undone` is called in the thread when a transaction was taken back.
        """
        self._path = path
        self._undone = undone
        self._due = due
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"ledger-{path.stem}")
        self._db: sqlite3.Connection | None = None
        self._waiting: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None

    async def open(self, prepare: Callable[[], sqlite3.Connection]) -> None:
        def connect() -> None:
            with _explained(self._path):
                self._db = prepare()

        await asyncio.get_running_loop().run_in_executor(self._thread, connect)

    async def call(self, work: Work[_Answer]) -> _Answer:
        """Raises `LedgerUnavailable` or `LedgerCorrupt`; then nothing was changed."""
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, answer))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_groups())
        return await answer

    async def close(self) -> None:
        """Carries out what was asked before."""
        if self._committing is not None:
            await self._committing
        if self._db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
        self._thread.shutdown(wait=False)

    async def _commit_groups(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                try:
                    found = await loop.run_in_executor(self._thread, self._commit, [work for work, _ in group])
                except Exception as error:  # noqa: BLE001 - told to every caller of the group
                    for _, answer in group:
                        if not answer.done():
                            answer.set_exception(error)
                    continue
                for (_, answer), value in zip(group, found, strict=True):
                    if not answer.done():
                        answer.set_result(value)
                tidying = self._due()
                if tidying is not None:
                    try:
                        await loop.run_in_executor(self._thread, self._commit, [tidying])
                    except LedgerError:
                        pass  # it comes again; callers are told by their own calls
        finally:
            self._committing = None

    def _commit(self, group: list[Work[Any]]) -> list[Any]:
        db = self._db
        assert db is not None, "opened before it is used"
        with _explained(self._path):
            db.execute("BEGIN IMMEDIATE")
            try:
                found = [work(db) for work in group]
                db.execute("COMMIT")
            except BaseException:
                self._undone()
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        return found


class _explained:  # noqa: N801 - reads as what it does: `with _explained(path)`
    """Errors of SQLite become those of the port."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        code = getattr(error, "sqlite_errorcode", None)
        if not isinstance(error, sqlite3.DatabaseError) or isinstance(error, sqlite3.IntegrityError) or code is None:
            return  # a mistake of ours, to be seen as it is
        code &= 0xFF
        name = getattr(error, "sqlite_errorname", "unknown")
        advice = _ADVICE.get(code)
        if advice is not None:
            raise LedgerUnavailable(f"{self._path}: {advice} ({error}, {name})") from error
        raise LedgerCorrupt(
            f"{self._path}: expected a ledger, found a damaged or foreign file ({error}, {name}); stop the agent, keep a copy, "
            "and try `sqlite3 FILE .recover`; a ledger that is begun anew repeats steps that have finished"
        ) from error


_ADVICE: Final = {
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_BUSY: "another program holds the file locked: end it",
    sqlite3.SQLITE_LOCKED: "another program holds the file locked: end it",
    sqlite3.SQLITE_FULL: "the disk is full, or the file has reached its bound: make room",
    sqlite3.SQLITE_IOERR: "the disk refused to read or write: look at its health and at the space that is left",
    sqlite3.SQLITE_READONLY: "file or folder may not be written: give this user the right to",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: folder and file must be there and be writable",
    sqlite3.SQLITE_PERM: "file or folder may not be written: give this user the right to",
}
