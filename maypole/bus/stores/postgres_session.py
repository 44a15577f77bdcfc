"""One session with PostgreSQL: group commits, a session lock that says that this instance lives, and a new session when it ends."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, TypeVar

import psycopg
from psycopg import AsyncConnection

from maypole.bus.ledger.port import LedgerCorrupt, LedgerUnavailable
from maypole.bus.stores.group_commit import GroupCommit
from maypole.bus.stores.postgres_schema import LEDGER, Tables

_Answer = TypeVar("_Answer")
Work = Callable[[AsyncConnection[Any]], Awaitable[_Answer]]

_TIMEOUT_SECONDS: Final = 5
_CONFLICTS_MAX: Final = 20
_DAMAGED: Final = (
    psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted, psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable,
)  # fmt: skip
_BEYOND: Final = (
    psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex, psycopg.errors.TooManyColumns, psycopg.errors.TooManyArguments,
)  # fmt: skip
"""SQLSTATE's class 54. To psycopg they are like a server that is away; asked again, the server answers the same."""
_AWAY: Final = (
    psycopg.OperationalError, psycopg.InterfaceError,
    # To psycopg these are mistakes in what was asked. They end without us: when a standby is promoted, a setting or a right given
    # back. What a transaction that took or stood still for too long would have done is undone, and asked for again.
    psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.IdleInTransactionSessionTimeout, psycopg.errors.TransactionTimeout,
    psycopg.errors.InsufficientPrivilege,
)  # fmt: skip
_MIGRATION_LOCK: Final = 7_208_465_113


class Conflict(Exception):
    """A row appeared between looking and writing: the transaction is to be repeated."""


class PostgresSession:
    """Belongs to one event loop. Work awaits statements inside the transaction, never ends it, and may be run again."""

    def __init__(self, address: str, agent: str, instance: str | None, tables: Tables = LEDGER) -> None:
        """`instance` None: no lock says that it lives."""
        self._address = address
        self._agent = agent
        self._tables = tables
        self._lock = None if instance is None else self._lock_of(instance)
        self._connection: AsyncConnection[Any] | None = None
        self._groups: GroupCommit[Work[Any]] = GroupCommit(self._commit)

    async def call(self, work: Work[_Answer]) -> _Answer:
        """Raises `LedgerUnavailable` (the change may stand all the same, its answer lost) or `LedgerCorrupt`."""
        answer: _Answer = await self._groups.call(work)
        return answer

    async def close(self) -> None:
        """Carries out what was asked before."""
        await self._groups.finish()
        await self._hang_up()

    async def free(self, db: AsyncConnection[Any], owners: Collection[str]) -> set[str]:
        """Those of these instances that hold no session. Their locks are taken and let go at the end of the transaction."""
        names = list(owners)
        query = "SELECT pg_try_advisory_xact_lock(key) FROM unnest(%s::bigint[]) WITH ORDINALITY AS keys (key, place) ORDER BY place"
        found = await (await db.execute(query, ([self._lock_of(name) for name in names],))).fetchall()
        return {name for name, (free,) in zip(names, found, strict=True) if free}

    async def _commit(self, group: list[Work[Any]]) -> list[Any]:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS * 2):
                for _ in range(_CONFLICTS_MAX):
                    db = await self._connected()
                    try:
                        async with db.transaction():
                            return [await work(db) for work in group]
                    except (Conflict, psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                        continue
            raise LedgerUnavailable(f"{self._name}: another instance changed the same rows {_CONFLICTS_MAX} times in a row")
        except TimeoutError:
            await self._hang_up()
            raise LedgerUnavailable(f"{self._name}: no answer within {_TIMEOUT_SECONDS * 2} s; is the server reachable?") from None
        except _DAMAGED as error:
            raise LedgerCorrupt(f"{self._name}: expected its tables, found: {error}; a person must look at the database") from error
        except _BEYOND as error:
            told = f"the server will never take what it was asked to write: {_told(error)}"
            raise LedgerCorrupt(f"{self._name}: {told}; waiting does not help, a person must look at it") from error
        except _AWAY as error:
            await self._hang_up()  # after a failover the address leads to another server
            raise LedgerUnavailable(f"{self._name}: the server cannot be used now: {_told(error)}") from error

    async def _connected(self) -> AsyncConnection[Any]:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        options = {"connect_timeout": _TIMEOUT_SECONDS, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
        db = await AsyncConnection.connect(self._address, autocommit=True, application_name=f"maypole {self._agent}", **options)  # type: ignore[arg-type]
        try:
            async with db.transaction():
                await _migrate(db, self._tables, self._name)
            # The server may not have noticed yet that our last session has ended.
            await db.execute(f"SET lock_timeout = '{_TIMEOUT_SECONDS}s'")
            if self._lock is not None:
                await db.execute("SELECT pg_advisory_lock(%s)", (self._lock,))
        except BaseException:
            await db.close()
            raise
        self._connection = db
        return db

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @property
    def _name(self) -> str:
        found = psycopg.conninfo.conninfo_to_dict(self._address)
        return f"the {self._tables.what} of {self._agent} in PostgreSQL at {found.get('host', 'its default address')}"

    def _lock_of(self, instance: str) -> int:
        name = f"{len(self._agent)} {self._agent} {instance}".encode()
        return int.from_bytes(hashlib.blake2b(name, digest_size=8, person=b"maypole ledger").digest(), "big", signed=True)


def _told(error: psycopg.Error) -> str:
    reason, *_ = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return f"{reason}; is it a standby, or default_transaction_read_only on?"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        rights = "CREATE on the schema; SELECT, INSERT, UPDATE and DELETE on the maypole_ tables"
        return f"{reason}; grant the user of MAYPOLE_STORE {rights}"
    return reason


async def _migrate(db: AsyncConnection[Any], tables: Tables, name: str) -> None:
    await db.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
    await db.execute(f"CREATE TABLE IF NOT EXISTS {tables.version} (version integer NOT NULL)")
    found = await (await db.execute(f"SELECT version FROM {tables.version}")).fetchone()
    version = 0 if found is None else int(found[0])
    if version > len(tables.migrations):
        raise LedgerCorrupt(
            f"{name} was written by a later Maypole: expected tables of version {len(tables.migrations)} or earlier, found {version}; "
            "run that version again, or set MAYPOLE_STORE to another database"
        )
    for statements in tables.migrations[version:]:
        for statement in statements:
            await db.execute(statement)
    if found is None:
        await db.execute(f"INSERT INTO {tables.version} VALUES (%s)", (len(tables.migrations),))
    elif version < len(tables.migrations):
        await db.execute(f"UPDATE {tables.version} SET version = %s", (len(tables.migrations),))
