"""The coordinator's store in one SQLite file: the default. Several coordinators on one machine may share it.

`synchronous` is NORMAL: a power failure may take back the last transactions, all of each, and what they said is folded
again from the journal. The death of a process takes nothing back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from maypole.bus.ports import Delivery
from maypole.bus.stores.sqlite_schema import migrate
from maypole.bus.stores.sqlite_thread import SqliteThread
from maypole.schemas.identifiers import FlowId
from maypole.services.coordinator.stores.port import Changes, Parked, Row, StoreUnavailable, Superseded, Taken
from maypole.services.coordinator.stores.records import read_back, written

MIGRATIONS: Final = (
    (
        (
            "CREATE TABLE partitions (partition INTEGER PRIMARY KEY, version TEXT NOT NULL, epoch INTEGER NOT NULL, "
            "next_offset INTEGER NOT NULL)"
        ),
        (
            "CREATE TABLE flows (n INTEGER PRIMARY KEY, flow_id TEXT NOT NULL, partition INTEGER NOT NULL, state BLOB NOT NULL, "
            "traces BLOB NOT NULL, subject TEXT, told TEXT NOT NULL, due_ms INTEGER, ended_ms INTEGER, pending INTEGER NOT NULL)"
        ),
        "CREATE UNIQUE INDEX flows_by_id ON flows (flow_id, partition)",
        "CREATE INDEX flows_due ON flows (partition, due_ms) WHERE due_ms IS NOT NULL",
        "CREATE INDEX flows_ended ON flows (partition, ended_ms) WHERE ended_ms IS NOT NULL",
        "CREATE INDEX flows_pending ON flows (partition) WHERE pending",
        (
            "CREATE TABLE parked (partition INTEGER, record_offset INTEGER, flow_id TEXT NOT NULL, pin TEXT NOT NULL, "
            "since_ms INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY (partition, record_offset))"
        ),
        "CREATE INDEX parked_by_flow ON parked (partition, flow_id)",
    ),
    (
        "DROP TABLE flows",
        # `n` is partition and first offset (`_place`): whoever knows a flow writes it without looking for it, and those that are
        # under way together lie together.
        (
            "CREATE TABLE flows (n INTEGER PRIMARY KEY, flow_id TEXT NOT NULL, partition INTEGER NOT NULL, state BLOB NOT NULL, "
            "traces BLOB NOT NULL, subject TEXT, told TEXT NOT NULL, due_ms INTEGER, ended_ms INTEGER, pending INTEGER NOT NULL, "
            "first_offset INTEGER NOT NULL)"
        ),
        "CREATE UNIQUE INDEX flows_by_id ON flows (flow_id, partition)",
        "CREATE INDEX flows_due ON flows (partition, due_ms) WHERE due_ms IS NOT NULL",
        "CREATE INDEX flows_ended ON flows (partition, ended_ms) WHERE ended_ms IS NOT NULL",
        "CREATE INDEX flows_pending ON flows (partition) WHERE pending",
        "DELETE FROM parked",
        "UPDATE partitions SET next_offset = 0, epoch = epoch + 1",
    ),
)
"""Only ever grows at its end."""

_BUSY_SECONDS: Final = 5.0
_CACHE_KIB: Final = 4 * 1024
_FIELDS: Final = "flow_id, state, traces, subject, told, due_ms, ended_ms, pending, first_offset"
_MOVE: Final = (
    "UPDATE flows SET state = ?, traces = ? WHERE n = ? AND subject IS ? AND told = ? AND due_ms IS ? AND ended_ms IS ? AND pending = ?"
)
"""What most rows need: nothing changes that an index holds, and no index is touched."""
_SAVE: Final = (
    f"INSERT INTO flows (n, partition, {_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (n) DO UPDATE SET "
    "state = excluded.state, traces = excluded.traces, subject = excluded.subject, told = excluded.told, due_ms = excluded.due_ms, "
    "ended_ms = excluded.ended_ms, pending = excluded.pending"
)
_TAKE: Final = (
    "INSERT INTO partitions VALUES (?, ?, 1, 0) ON CONFLICT (partition) DO UPDATE SET epoch = epoch + 1, version = excluded.version, "
    "next_offset = CASE WHEN version = excluded.version THEN next_offset ELSE 0 END RETURNING epoch, next_offset"
)
_LOAD_MAX: Final = 500


@asynccontextmanager
async def open_sqlite_store(path: Path) -> AsyncIterator[SqliteStore]:
    """Raises what every call of the port raises."""
    store = SqliteStore(path)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


class SqliteStore:
    """Made by `open_sqlite_store`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        damaged = "stop the coordinators and remove the file: it is folded anew from the journal"
        changed = "remove what is left of it and start again: it is folded anew from the journal"
        self._thread = SqliteThread(path, name="coordinator's store", damaged=damaged, changed=changed)

    async def open(self) -> None:
        def prepare() -> sqlite3.Connection:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreUnavailable(
                    f"{self._path}: expected a folder that can be written, found: {error.strerror}; give this user the right to"
                ) from error
            db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                migrate(db, str(self._path), MIGRATIONS, "the journal is folded anew")
            except BaseException:
                db.close()
                raise
            return db

        await self._thread.open(prepare)

    async def close(self) -> None:
        await self._thread.close()

    async def take(self, partition: int, version: str) -> Taken:
        def work(db: sqlite3.Connection) -> Taken:
            epoch, next_offset = db.execute(_TAKE, (partition, version)).fetchone()
            if next_offset == 0:
                for table in ("flows", "parked"):
                    db.execute(f"DELETE FROM {table} WHERE partition = ?", (partition,))
            return Taken(epoch, next_offset)

        return await self._thread.call(work)

    async def save(self, partition: int, epoch: int, next_offset: int, changes: Changes) -> None:
        parked = [(partition, record.offset, flow_id, pin, record.timestamp_ms, written(record)) for flow_id, pin, record in changes.parked]

        def work(db: sqlite3.Connection) -> bool:
            # An answer and no error: what others wait for in the same transaction is none of its business.
            moving = "UPDATE partitions SET next_offset = ? WHERE partition = ? AND epoch = ?"
            if not db.execute(moving, (next_offset, partition, epoch)).rowcount:
                return False
            move = db.cursor().execute
            for row in changes.rows:
                _, state, traces, *rest, first_offset = row
                n = _place(partition, first_offset)
                if not move(_MOVE, (state, traces, n, *rest)).rowcount:
                    db.execute(_SAVE, (n, partition, *row))
            if changes.released:
                releasing = "DELETE FROM parked WHERE partition = ? AND flow_id = ?"
                db.executemany(releasing, [(partition, flow_id) for flow_id in changes.released])
            if parked:
                db.executemany("INSERT OR IGNORE INTO parked VALUES (?, ?, ?, ?, ?, ?)", parked)
            return True

        if not await self._thread.call(work):
            raise Superseded(partition, epoch)

    async def load(self, partition: int, flows: Collection[FlowId]) -> Mapping[FlowId, Row]:
        wanted = list(flows)

        def work(db: sqlite3.Connection) -> Mapping[FlowId, Row]:
            found: dict[FlowId, Row] = {}
            for at in range(0, len(wanted), _LOAD_MAX):
                some = wanted[at : at + _LOAD_MAX]
                query = f"SELECT {_FIELDS} FROM flows WHERE partition = ? AND flow_id IN ({', '.join('?' * len(some))})"
                found.update((line[0], Row._make(line)._replace(pending=bool(line[7]))) for line in db.execute(query, (partition, *some)))
            return found

        return await self._thread.call(work) if wanted else {}

    async def due(self, partition: int, until_ms: int, limit: int) -> Sequence[FlowId]:
        query = "SELECT flow_id FROM flows WHERE partition = ? AND due_ms <= ? ORDER BY due_ms LIMIT ?"
        return await self._thread.call(lambda db: [flow_id for (flow_id,) in db.execute(query, (partition, until_ms, limit))])

    async def next_due(self, partition: int) -> int | None:
        query = "SELECT min(due_ms) FROM flows WHERE partition = ? AND due_ms IS NOT NULL"
        [found] = await self._thread.call(lambda db: db.execute(query, (partition,)).fetchone())
        return None if found is None else int(found)

    async def pending(self, partition: int) -> Sequence[FlowId]:
        query = "SELECT flow_id FROM flows WHERE partition = ? AND pending"
        return await self._thread.call(lambda db: [flow_id for (flow_id,) in db.execute(query, (partition,))])

    async def parked(self, partition: int) -> Sequence[Parked]:
        query = "SELECT flow_id, max(pin), min(since_ms), count(*) FROM parked WHERE partition = ? GROUP BY flow_id"
        return await self._thread.call(lambda db: [Parked(*line) for line in db.execute(query, (partition,))])

    async def parked_records(self, partition: int, flow: FlowId) -> Sequence[Delivery]:
        query = "SELECT record FROM parked WHERE partition = ? AND flow_id = ? ORDER BY record_offset"
        return await self._thread.call(lambda db: [read_back(record) for (record,) in db.execute(query, (partition, flow))])

    async def forget(self, partition: int, ended_before_ms: int, limit: int) -> int:
        statement = "DELETE FROM flows WHERE n IN (SELECT n FROM flows WHERE partition = ? AND ended_ms < ? ORDER BY ended_ms LIMIT ?)"
        return await self._thread.call(lambda db: db.execute(statement, (partition, ended_before_ms, limit)).rowcount)


def _place(partition: int, first_offset: int) -> int:
    return partition << 48 | first_offset
