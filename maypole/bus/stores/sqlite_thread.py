"""One thread that owns a SQLite connection, and group commits in it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from maypole.bus.ledger.port import LedgerCorrupt, LedgerError, LedgerUnavailable
from maypole.bus.stores.group_commit import GroupCommit
from maypole.bus.stores.sqlite_files import Files

_Answer = TypeVar("_Answer")
Work = Callable[[sqlite3.Connection], _Answer]

DAMAGED: Final = (
    "stop the agent, keep a copy, and try `sqlite3 FILE .recover`; a ledger that is begun anew repeats steps that have finished"
)
CHANGED: Final = (
    "put the file back, or start with an empty folder in place of its own: what finished and was not committed yet is then repeated"
)


class SqliteThread:
    """Belongs to one event loop. Work reads and writes inside the transaction, and never ends it."""

    def __init__(
        self,
        path: Path,
        due: Callable[[], Work[None] | None] = lambda: None,
        undone: Callable[[], None] = lambda: None,
        *,
        name: str = "ledger",
        damaged: str = DAMAGED,
        changed: str = CHANGED,
    ) -> None:
        """`due` names what is to be tidied; that is done after the answers of a group were given.

        `undone` is called in the thread when a transaction was taken back. `damaged` is what to do with a file that is no `name`,
        `changed` with one that is not the one that was opened.
        """
        self._path = path
        self._name = name
        self._damaged = damaged
        self._files = Files(path, name, changed)
        self._undone = undone
        self._due = due
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-{path.stem}")
        self._db: sqlite3.Connection | None = None
        self._prepare: Callable[[], sqlite3.Connection] | None = None
        self._refused = False
        """The last write, because the file may only be read."""
        self._groups: GroupCommit[Work[Any]] = GroupCommit(self._commit, self._tidy)

    async def open(self, prepare: Callable[[], sqlite3.Connection]) -> None:
        """`prepare` is called again when the file could not be written and may be later. Raises what `call` raises."""
        self._prepare = prepare

        def connect() -> None:
            with self._explained():
                self._db = prepare()
                _require_writable(self._db)

        await asyncio.get_running_loop().run_in_executor(self._thread, connect)

    async def call(self, work: Work[_Answer]) -> _Answer:
        """Raises `LedgerUnavailable` or `LedgerCorrupt`; then nothing was changed."""
        answer: _Answer = await self._groups.call(work)
        return answer

    async def close(self) -> None:
        """Carries out what was asked before."""
        await self._groups.finish()
        if self._db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
        self._thread.shutdown(wait=False)

    async def _commit(self, group: list[Work[Any]]) -> list[Any]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, group)

    async def _tidy(self) -> None:
        tidying = self._due()
        if tidying is not None:
            try:
                await self._commit([tidying])
            except LedgerError:
                pass  # it comes again; callers are told by their own calls

    def _transaction(self, group: list[Work[Any]]) -> list[Any]:
        with self._explained():
            db = self._connected()
            try:
                db.execute("BEGIN IMMEDIATE")
                found = [work(db) for work in group]
                db.execute("COMMIT")
                self._files.check()
            except BaseException as error:
                self._refused = _is_read_only(error)
                self._undone()
                if db.in_transaction:
                    db.execute("ROLLBACK")
                self._files.check()  # what cannot be read because it was cut short does not come back by waiting
                raise
        return found

    def _connected(self) -> sqlite3.Connection:
        """A file that could not be written stays so for the connection that found out, whatever rights it is given since."""
        assert self._db is not None and self._prepare is not None, "opened before it is used"
        if self._refused and self._path.exists():  # where there is none, a new one would be empty
            db, self._db = self._db, self._prepare()
            db.close()
            self._refused = False
        return self._db

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of SQLite become those of the port."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", None)
            if isinstance(error, sqlite3.IntegrityError) or code is None:
                raise  # a mistake of ours, to be seen as it is
            name = getattr(error, "sqlite_errorname", "unknown")
            advice = _ADVICE.get(code & 0xFF)
            if advice is not None:
                raise LedgerUnavailable(f"{self._path}: {advice} ({error}, {name})") from error
            raise LedgerCorrupt(
                f"{self._path}: expected a {self._name}, found a damaged or foreign file ({error}, {name}); {self._damaged}"
            ) from error


def _require_writable(db: sqlite3.Connection) -> None:
    """SQLite opens a file that may only be read without a word, and refuses the first write."""
    [version] = db.execute("PRAGMA user_version").fetchone()
    try:
        db.execute("BEGIN IMMEDIATE")
        db.execute(f"PRAGMA user_version = {version}")
    except sqlite3.OperationalError as error:
        if _is_read_only(error):
            raise
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _is_read_only(error: BaseException) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_READONLY and code != sqlite3.SQLITE_READONLY_DBMOVED


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
