"""The coordinator's store in PostgreSQL: for coordinators on several machines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from psycopg import AsyncConnection

from maypole.bus.ports import Delivery
from maypole.bus.stores.postgres_schema import Tables
from maypole.bus.stores.postgres_session import PostgresSession
from maypole.schemas.identifiers import FlowId
from maypole.services.coordinator.stores.port import Changes, Parked, Row, Superseded, Taken
from maypole.services.coordinator.stores.records import read_back, written

_PLACE: Final = "cluster text, partition integer"

TABLES: Final = Tables(
    "coordinator's store",
    "maypole_coordinator_version",
    (
        (
            (
                f"CREATE TABLE maypole_sagas_folded ({_PLACE}, version text NOT NULL, epoch bigint NOT NULL, "
                "next_offset bigint NOT NULL, PRIMARY KEY (cluster, partition))"
            ),
            (
                f"CREATE TABLE maypole_sagas ({_PLACE}, flow_id text, state bytea NOT NULL, traces bytea NOT NULL, subject text, "
                "told text NOT NULL, due_ms bigint, ended_ms bigint, pending boolean NOT NULL, PRIMARY KEY (cluster, partition, flow_id))"
            ),
            "CREATE INDEX maypole_sagas_due ON maypole_sagas (cluster, partition, due_ms) WHERE due_ms IS NOT NULL",
            "CREATE INDEX maypole_sagas_ended ON maypole_sagas (cluster, partition, ended_ms) WHERE ended_ms IS NOT NULL",
            "CREATE INDEX maypole_sagas_pending ON maypole_sagas (cluster, partition) WHERE pending",
            (
                f"CREATE TABLE maypole_sagas_parked ({_PLACE}, record_offset bigint, flow_id text NOT NULL, pin text NOT NULL, "
                "since_ms bigint NOT NULL, record bytea NOT NULL, PRIMARY KEY (cluster, partition, record_offset))"
            ),
            "CREATE INDEX maypole_sagas_parked_by_flow ON maypole_sagas_parked (cluster, partition, flow_id)",
        ),
        ("ALTER TABLE maypole_sagas ADD COLUMN first_offset bigint NOT NULL DEFAULT 0",),
    ),
)

_FIELDS: Final = "flow_id, state, traces, subject, told, due_ms, ended_ms, pending, first_offset"
_SAVE: Final = (
    f"INSERT INTO maypole_sagas (cluster, partition, {_FIELDS}) SELECT %s, %s, * FROM unnest(%s::text[], %s::bytea[], %s::bytea[], "
    "%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::boolean[], %s::bigint[]) "
    "ON CONFLICT (cluster, partition, flow_id) DO UPDATE SET (state, traces, subject, told, due_ms, ended_ms, pending) = "
    "(excluded.state, excluded.traces, excluded.subject, excluded.told, excluded.due_ms, excluded.ended_ms, excluded.pending)"
)
_TAKE: Final = (
    "INSERT INTO maypole_sagas_folded AS it VALUES (%s, %s, %s, 1, 0) ON CONFLICT (cluster, partition) DO UPDATE SET "
    "epoch = it.epoch + 1, version = excluded.version, "
    "next_offset = CASE WHEN it.version = excluded.version THEN it.next_offset ELSE 0 END RETURNING epoch, next_offset"
)

_Db = AsyncConnection[Any]


@asynccontextmanager
async def open_postgres_store(address: str, cluster_id: str) -> AsyncIterator[PostgresStore]:
    """`address` as libpq takes it; clusters may share a database. Raises what every call of the port raises."""
    store = PostgresStore(address, cluster_id)
    try:
        await store.pending(0)
        yield store
    finally:
        await store.close()


class PostgresStore:
    """Made by `open_postgres_store`."""

    def __init__(self, address: str, cluster_id: str) -> None:
        self._cluster = cluster_id
        self._session = PostgresSession(address, "the coordinators", None, TABLES)

    async def close(self) -> None:
        await self._session.close()

    async def take(self, partition: int, version: str) -> Taken:
        place = (self._cluster, partition)

        async def work(db: _Db) -> Taken:
            [(epoch, next_offset)] = await _all(db, _TAKE, *place, version)
            if next_offset == 0:
                await db.execute("DELETE FROM maypole_sagas WHERE cluster = %s AND partition = %s", place)
                await db.execute("DELETE FROM maypole_sagas_parked WHERE cluster = %s AND partition = %s", place)
            return Taken(epoch, next_offset)

        return await self._session.call(work)

    async def save(self, partition: int, epoch: int, next_offset: int, changes: Changes) -> None:
        place = (self._cluster, partition)
        columns = list(map(list, zip(*changes.rows, strict=True)))
        parked = [(*place, record.offset, flow_id, pin, record.timestamp_ms, written(record)) for flow_id, pin, record in changes.parked]

        async def work(db: _Db) -> bool:
            moving = "UPDATE maypole_sagas_folded SET next_offset = %s WHERE cluster = %s AND partition = %s AND epoch = %s"
            if not (await db.execute(moving, (next_offset, *place, epoch))).rowcount:
                return False
            if columns:
                await db.execute(_SAVE, (*place, *columns))
            if changes.released:
                releasing = "DELETE FROM maypole_sagas_parked WHERE cluster = %s AND partition = %s AND flow_id = ANY(%s)"
                await db.execute(releasing, (*place, list(changes.released)))
            for line in parked:
                adding = "INSERT INTO maypole_sagas_parked VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
                await db.execute(adding, line)
            return True

        if not await self._session.call(work):
            raise Superseded(partition, epoch)

    async def load(self, partition: int, flows: Collection[FlowId]) -> Mapping[FlowId, Row]:
        if not flows:
            return {}
        query = f"SELECT {_FIELDS} FROM maypole_sagas WHERE cluster = %s AND partition = %s AND flow_id = ANY(%s)"
        lines = await self._query(query, partition, list(flows))
        return {line[0]: Row(line[0], bytes(line[1]), bytes(line[2]), *line[3:]) for line in lines}

    async def due(self, partition: int, until_ms: int, limit: int) -> Sequence[FlowId]:
        query = "SELECT flow_id FROM maypole_sagas WHERE cluster = %s AND partition = %s AND due_ms <= %s ORDER BY due_ms LIMIT %s"
        return [flow_id for (flow_id,) in await self._query(query, partition, until_ms, limit)]

    async def next_due(self, partition: int) -> int | None:
        query = "SELECT min(due_ms) FROM maypole_sagas WHERE cluster = %s AND partition = %s AND due_ms IS NOT NULL"
        [(found,)] = await self._query(query, partition)
        return None if found is None else int(found)

    async def pending(self, partition: int) -> Sequence[FlowId]:
        query = "SELECT flow_id FROM maypole_sagas WHERE cluster = %s AND partition = %s AND pending"
        return [flow_id for (flow_id,) in await self._query(query, partition)]

    async def parked(self, partition: int) -> Sequence[Parked]:
        query = (
            "SELECT flow_id, max(pin), min(since_ms), count(*) FROM maypole_sagas_parked WHERE cluster = %s AND partition = %s "
            "GROUP BY flow_id"
        )
        return [Parked(*line) for line in await self._query(query, partition)]

    async def parked_records(self, partition: int, flow: FlowId) -> Sequence[Delivery]:
        query = "SELECT record FROM maypole_sagas_parked WHERE cluster = %s AND partition = %s AND flow_id = %s ORDER BY record_offset"
        return [read_back(bytes(record)) for (record,) in await self._query(query, partition, flow)]

    async def forget(self, partition: int, ended_before_ms: int, limit: int) -> int:
        statement = (
            "DELETE FROM maypole_sagas WHERE (cluster, partition, flow_id) IN (SELECT cluster, partition, flow_id FROM maypole_sagas "
            "WHERE cluster = %s AND partition = %s AND ended_ms < %s ORDER BY ended_ms LIMIT %s)"
        )

        async def work(db: _Db) -> int:
            return (await db.execute(statement, (self._cluster, partition, ended_before_ms, limit))).rowcount

        return await self._session.call(work)

    async def _query(self, query: str, partition: int, *rest: object) -> list[Any]:
        return await self._session.call(lambda db: _all(db, query, self._cluster, partition, *rest))


async def _all(db: _Db, query: str, *arguments: object) -> list[Any]:
    found = await db.execute(query, arguments, binary=True)
    return list(await found.fetchall())
