"""The ledger in PostgreSQL: for several instances of one agent, where a row follows whoever owns the partition.

Each instance holds a session lock under its name. Where that lock is free its owner is *certainly* dead if it ran on this
machine and its process is gone. Otherwise it is *presumed* dead, once the lock has been free for `grace_ms`: a server that
restarts ends every session, and whoever lives comes back within that time. Who was only presumed dead cannot finish a step
that somebody else has taken over; what it may have begun outside is waited for, to the end of its lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection

from maypole.bus.ledger.deciding import decide
from maypole.bus.ledger.port import Answer, Ask, Join, JoinState, LedgerUnavailable, Part, Place, Row
from maypole.bus.ledger.step import State, Step, Turn
from maypole.bus.ledger.transitions import Death
from maypole.bus.ports import TopicPartition
from maypole.bus.stores.postgres_schema import ADD, CHANGE, FIND, FIND_AND_LOCK, FORGET, UNSETTLED
from maypole.bus.stores.postgres_session import Conflict, PostgresSession
from maypole.bus.stores.processes import Process, has_ended, process_of, this_process
from maypole.schemas.identifiers import EventId, FlowId, StepId
from maypole.schemas.journal import Effect

GRACE_MS: Final = 5_000

_Db = AsyncConnection[Any]
_COLUMNS: Final = 16
_AT: Final = " at "


@asynccontextmanager
async def open_postgres_ledger(
    address: str, agent: str, instance: str, now_ms: Callable[[], int], grace_ms: int = GRACE_MS, process: Process | None = None
) -> AsyncIterator[PostgresLedger]:
    """`address` as libpq takes it; `process` is the one whose end is the instance's, this one unless said otherwise.

    Raises what every call of the port raises.
    """
    ledger = PostgresLedger(address, agent, _owner(instance, process or this_process()), now_ms, grace_ms)
    try:
        await ledger.rows([])
        staying = asyncio.create_task(ledger.stay_alive())
        try:
            yield ledger
        finally:
            staying.cancel()
            await asyncio.wait([staying])
    finally:
        await ledger.close()


class PostgresLedger:
    """Made by `open_postgres_ledger`."""

    def __init__(self, address: str, agent: str, instance: str, now_ms: Callable[[], int], grace_ms: int) -> None:
        self.instance = instance
        self._agent = agent
        self._now_ms = now_ms
        self._grace_ms = grace_ms
        self._session = PostgresSession(address, agent, instance)
        self._free_since: dict[str, float] = {}
        """When a session lock was first found free, by the loop's clock."""

    async def close(self) -> None:
        await self._session.close()

    async def stay_alive(self) -> None:
        """A session that ended unseen is opened again before anybody may presume that this instance is dead."""
        while True:
            await asyncio.sleep(max(self._grace_ms, 1000) / 4000)
            try:
                await self.rows([])
            except LedgerUnavailable:
                continue  # whoever needs the ledger is told so

    async def ask(self, asks: Sequence[Ask]) -> Sequence[Answer]:
        step_ids = list({each.step_id for each in asks})

        async def work(db: _Db) -> Sequence[Answer]:
            rows = await self._find(db, FIND_AND_LOCK, step_ids)
            deaths = await self._deaths(db, rows.values())
            answers, changed = decide(asks, rows, self.instance, lambda owner: deaths.get(owner, Death.UNKNOWN), self._now_ms())
            await self._write(db, ADD, [row for step_id, row in sorted(changed.items()) if step_id not in rows])
            await self._write(db, CHANGE, [row for step_id, row in changed.items() if step_id in rows])
            return answers

        return await self._session.call(work)

    async def rows(self, step_ids: Collection[StepId]) -> Mapping[StepId, Row]:
        return await self._session.call(lambda db: self._find(db, FIND, step_ids))

    async def unsettled(self, partitions: Collection[TopicPartition]) -> Sequence[Row]:
        async def work(db: _Db) -> Sequence[Row]:
            return [_row(line) for at in partitions for line in await _all(db, UNSETTLED, self._agent, *at)]

        return await self._session.call(work)

    async def forget(self, before_ms: int, limit: int) -> int:
        async def work(db: _Db) -> int:
            return max([(await db.execute(statement, (self._agent, before_ms, limit))).rowcount for statement in FORGET])

        return await self._session.call(work)

    async def memo(self, step_id: StepId, name: str) -> bytes | None:
        return await self._session.call(lambda db: self._memo(db, step_id, name))

    async def memoise(self, step_id: StepId, name: str, value: bytes) -> bytes:
        async def work(db: _Db) -> bytes:
            adding = "INSERT INTO maypole_memos VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
            await db.execute(adding, (self._agent, UUID(step_id), name, value, self._now_ms()))
            kept = await self._memo(db, step_id, name)
            return value if kept is None else kept

        return await self._session.call(work)

    async def join(self, parts: Sequence[Part]) -> Sequence[Join]:
        async def work(db: _Db) -> Sequence[Join]:
            joins: list[Join] = []
            for part in parts:
                flow_id, at = part.place
                await self._open_join(db, part.join_id, part.place)
                # Locked, so that nobody closes it between looking at its state and adding to it.
                adding = (
                    "WITH it AS (SELECT 1 FROM maypole_joins WHERE agent = %s AND join_id = %s AND state = %s FOR UPDATE) "
                    "INSERT INTO maypole_parts SELECT %s, %s, %s, %s, %s, %s, %s, %s, %s FROM it ON CONFLICT DO NOTHING"
                )
                found = (self._agent, part.join_id, JoinState.OPEN.value)
                await db.execute(adding, (*found, self._agent, part.join_id, part.type, part.event_id, flow_id, *at, part.body, part.of))
                firing = (
                    "UPDATE maypole_joins SET state = %s, completed_by = %s WHERE agent = %s AND join_id = %s AND state = %s "
                    "AND (SELECT count(*) FROM maypole_parts WHERE agent = %s AND join_id = %s) = %s"
                )
                await db.execute(firing, (JoinState.FIRED.value, part.event_id, *found, *found[:2], part.of))
                joins += await self._joins(db, [part.join_id])
            return joins

        return await self._session.call(work)

    async def expire_join(self, join_id: str, place: Place) -> Join:
        async def work(db: _Db) -> Join:
            await self._open_join(db, join_id, place)
            closing = "UPDATE maypole_joins SET state = %s WHERE agent = %s AND join_id = %s AND state = %s"
            await db.execute(closing, (JoinState.EXPIRED.value, self._agent, join_id, JoinState.OPEN.value))
            [join] = await self._joins(db, [join_id])
            return join

        return await self._session.call(work)

    async def joins(self, join_ids: Collection[str]) -> Mapping[str, Join]:
        async def work(db: _Db) -> Mapping[str, Join]:
            return {join.join_id: join for join in await self._joins(db, join_ids)}

        return await self._session.call(work)

    async def open_joins(self, partitions: Collection[TopicPartition]) -> Sequence[Join]:
        query = "SELECT join_id FROM maypole_joins WHERE agent = %s AND topic = %s AND partition = %s AND state = 0"

        async def work(db: _Db) -> Sequence[Join]:
            return await self._joins(db, [join_id for at in partitions for (join_id,) in await _all(db, query, self._agent, *at)])

        return await self._session.call(work)

    async def _find(self, db: _Db, query: str, step_ids: Collection[StepId]) -> dict[StepId, Row]:
        if not step_ids:
            return {}
        lines = await _all(db, query, self._agent, [UUID(step_id) for step_id in step_ids])
        return {row.step_id: row for row in map(_row, lines)}

    async def _deaths(self, db: _Db, rows: Iterable[Row]) -> Mapping[str, Death]:
        owners = {row.step.owner for row in rows if row.step.may_act_until_ms} - {self.instance}
        if not owners:
            return {}
        free = await self._session.free(db, owners)
        now = asyncio.get_running_loop().time()
        for owner in owners - free:
            self._free_since.pop(owner, None)
        for owner in free:
            self._free_since.setdefault(owner, now)
        return {owner: self._death_of(owner, (now - self._free_since[owner]) * 1000) for owner in free}

    def _death_of(self, owner: str, free_ms: float) -> Death:
        process = process_of(owner.rpartition(_AT)[2])
        if process is not None and has_ended(process):
            return Death.CERTAIN
        return Death.PRESUMED if free_ms >= self._grace_ms else Death.UNKNOWN

    async def _write(self, db: _Db, statement: str, rows: Sequence[Row]) -> None:
        if not rows:
            return
        columns = list(zip(*map(_line, rows), strict=True))
        assert len(columns) == _COLUMNS
        written = await db.execute(statement, (self._agent, *map(list, columns)))
        if written.rowcount != len(rows):
            raise Conflict

    async def _memo(self, db: _Db, step_id: StepId, name: str) -> bytes | None:
        query = "SELECT value FROM maypole_memos WHERE agent = %s AND id = %s AND name = %s"
        lines = await _all(db, query, self._agent, UUID(step_id), name)
        return bytes(lines[0][0]) if lines else None

    async def _open_join(self, db: _Db, join_id: str, place: Place) -> None:
        """Unless it is there."""
        flow_id, at = place
        opening = "INSERT INTO maypole_joins VALUES (%s, %s, %s, %s, %s, %s, %s, NULL) ON CONFLICT DO NOTHING"
        await db.execute(opening, (self._agent, join_id, flow_id, *at, JoinState.OPEN.value, self._now_ms()))

    async def _joins(self, db: _Db, join_ids: Collection[str]) -> list[Join]:
        if not join_ids:
            return []
        query = (
            "SELECT join_id, flow_id, topic, partition, state, since_ms, completed_by "
            "FROM maypole_joins WHERE agent = %s AND join_id = ANY(%s)"
        )
        parts_query = (
            "SELECT join_id, type, event_id, flow_id, topic, partition, body, needed "
            "FROM maypole_parts WHERE agent = %s AND join_id = ANY(%s)"
        )
        parts: dict[str, dict[str, Part]] = {}
        for join_id, type_, event_id, flow_id, topic, partition, body, of in await _all(db, parts_query, self._agent, list(join_ids)):
            place = Place(FlowId(flow_id), TopicPartition(topic, partition))
            parts.setdefault(join_id, {})[type_] = Part(join_id, place, type_, EventId(event_id), bytes(body), of)
        return [
            Join(
                join_id,
                Place(FlowId(flow_id), TopicPartition(topic, partition)),
                JoinState(state),
                since_ms,
                parts.get(join_id, {}),
                completed_by,
            )
            for join_id, flow_id, topic, partition, state, since_ms, completed_by in await _all(db, query, self._agent, list(join_ids))
        ]


def _owner(instance: str, process: Process | None) -> str:
    """As it stands in rows: whoever finds it there can ask whether that process has ended."""
    return instance if process is None else f"{instance}{_AT}{process}"


async def _all(db: _Db, query: str, *arguments: object) -> list[Any]:
    found = await db.execute(query, arguments, binary=True)
    return list(await found.fetchall())


def _line(row: Row) -> tuple[Any, ...]:
    step, (flow_id, at) = row.step, row.place
    return (
        UUID(row.step_id), step.state.value, step.attempt, step.owner, step.lease_until_ms, step.alive_until_ms, step.acts,
        step.effect.value, flow_id, at[0], at[1], row.updated_ms, row.outcome, row.undo, step.generation,
        int(step.turn),
    )  # fmt: skip


def _row(line: Sequence[Any]) -> Row:
    (id_, state, attempt, owner, lease, alive, acts, effect, flow_id, topic, partition, updated_ms, outcome, undo, generation, turn) = line
    step = Step(State(state), attempt, owner, lease, alive, acts, Effect(effect), generation, Turn(turn))
    return Row(StepId(str(id_)), Place(FlowId(flow_id), TopicPartition(topic, partition)), step, updated_ms, bytes(outcome), bytes(undo))
