"""The ledger in one SQLite file: the embedded default, for one process at a time.

WAL and one writer. `synchronous` is FULL: a commit is on the disk before it stands, so a power failure cannot take back
a DONE row whose outputs have left (P4 of the saga protocol). NORMAL survives the death of the process just as well and
spares a flush for each group of commits; with it, a power failure breaks the promise that what is compensated is gone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

from maypole.bus.ledger.deciding import decide
from maypole.bus.ledger.port import Answer, Ask, Join, JoinState, LedgerCorrupt, Part, Place, Row
from maypole.bus.ledger.step import State, Step, Turn
from maypole.bus.ledger.transitions import Death
from maypole.bus.ports import TopicPartition
from maypole.bus.stores.lock_file import LockFile
from maypole.bus.stores.sqlite_schema import CLEAN, SWEEP, migrate
from maypole.bus.stores.sqlite_thread import SqliteThread, Work
from maypole.schemas.identifiers import EventId, FlowId, StepId
from maypole.schemas.journal import Effect

Synchronous = Literal["FULL", "NORMAL"]

_BUSY_SECONDS: Final = 5.0
_CACHE_KIB: Final = 32 * 1024
_SWEEP_EVERY: Final = 2048
_SWEEP_PARTS: Final = 16
"""New rows between two sweeps, and sweeps to go round. `recent` holds half their product: with half as many, a million
rows would cost more pages of `old` than are spared in `recent`; with twice as many, the other way round."""
_CLEAN_EVERY: Final = 65_536
"""Rows forgotten between two rounds in which the sweeps also look for their entries, which takes reading all of `old`."""
_KNOWN_MAX: Final = 10_000
_HALVES: Final = 2**64
_KEPT: Final = "a ledger is kept here"
_STATES: Final = (State.STARTED, State.DONE, State.FAILED, State.ABANDONED, State.COMPENSATED, State.FENCED)
"""By the number that stands for it in the file."""
_EFFECTS: Final = (Effect.NONE, Effect.UNKNOWN, Effect.APPLIED)
_STATE_CODES: Final = {state: code for code, state in enumerate(_STATES)}
_TURNS: Final = tuple(Turn)
_EFFECT_CODES: Final = {effect: code for code, effect in enumerate(_EFFECTS)}
_FIELDS: Final = (
    "id, state, attempt, owner, lease_until_ms, alive_until_ms, acts, effect, flow_id, topic, partition, updated_ms, outcome, undo, "
    "generation, turn"
)
_MARKS: Final = ", ".join("?" * 16)


@asynccontextmanager
async def open_sqlite_ledger(
    path: Path, instance: str, now_ms: Callable[[], int], synchronous: Synchronous = "FULL"
) -> AsyncIterator[SqliteLedger]:
    """Raises `LedgerInUse` where another process works on this file, and what every call of the port raises."""
    lock = LockFile(path.with_name(f"{path.name}.lock"))
    try:
        _check_kept(path, lock)
        ledger = SqliteLedger(path, instance, now_ms)
        try:
            await ledger.open(synchronous)
            lock.leave(_KEPT)
            yield ledger
        finally:
            await ledger.close()
    finally:
        lock.release()


def _check_kept(path: Path, lock: LockFile) -> None:
    """Where a ledger was once kept, one that is not there any more is no new one. Raises `LedgerCorrupt`."""
    found = "no file" if not path.exists() else "an empty file" if not path.stat().st_size else None
    if lock.note == _KEPT and found is not None:
        raise LedgerCorrupt(
            f"{path}: expected the ledger that was kept here, found {found}; put it back, or remove {lock.path} too and accept "
            "that steps which finished and were not committed yet are repeated, and that nobody knows what earlier ones did"
        )


class SqliteLedger:
    """Made by `open_sqlite_ledger`, which holds the lock: every other owner of a lease is dead."""

    def __init__(self, path: Path, instance: str, now_ms: Callable[[], int]) -> None:
        self.instance = instance
        self._path = path
        self._now_ms = now_ms
        self._thread = SqliteThread(path, self._due, self._not_sure)
        self._known: dict[StepId, tuple[Row, int] | None] = {}
        """What cannot have changed since we looked or wrote, because nobody else writes: steps under way, and steps without a row."""
        self._next = 1
        self._unswept = 0
        self._sweep_part = 0
        self._cleaning_left = 0
        self._cleaning_below = 0

    async def open(self, synchronous: Synchronous) -> None:
        def prepare() -> sqlite3.Connection:
            db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute(f"PRAGMA synchronous = {synchronous}")
                db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                migrate(db, str(self._path))
                [self._next] = db.execute("SELECT coalesce(max(n), 0) + 1 FROM ended").fetchone()
                if self._next == 1:  # numbers begin anew, and a step that comes again must not meet its own entry
                    db.execute("DELETE FROM recent")
                    db.execute("DELETE FROM old")
                    db.execute("UPDATE cleaned SET below = 0")
            except BaseException:
                db.close()
                raise
            return db

        await self._thread.open(prepare)

    async def close(self) -> None:
        await self._thread.close()

    async def ask(self, asks: Sequence[Ask]) -> Sequence[Answer]:
        def work(db: sqlite3.Connection) -> Sequence[Answer]:
            keys = {each.step_id: _key(each.step_id) for each in asks}
            found = self._find(db, keys)
            rows = {step_id: row for step_id, (row, _) in found.items()}
            answers, changed = decide(asks, rows, self.instance, _dead, self._now_ms())
            self._write(db, keys, found, changed)
            return answers

        return await self._thread.call(work)

    async def rows(self, step_ids: Collection[StepId]) -> Mapping[StepId, Row]:
        keys = {step_id: _key(step_id) for step_id in step_ids}
        return await self._thread.call(lambda db: {step_id: row for step_id, (row, _) in self._find(db, keys).items()})

    async def unsettled(self, partitions: Collection[TopicPartition]) -> Sequence[Row]:
        fields = _FIELDS.replace("outcome", "x''")
        # One condition each, as their indexes have it.
        fenced = f"SELECT {fields} FROM ended WHERE topic = ? AND partition = ? AND state = {_STATE_CODES[State.FENCED]}"
        awaited = f"SELECT {fields} FROM ended WHERE topic = ? AND partition = ? AND turn = {Turn.AWAITED:d}"
        started = f"SELECT {fields} FROM started WHERE topic = ? AND partition = ?"

        def work(db: sqlite3.Connection) -> Sequence[Row]:
            found = {line[0]: line for at in partitions for query in (started, fenced, awaited) for line in db.execute(query, at)}
            return [_row(StepId(str(UUID(bytes=key))), line) for key, line in found.items()]

        return await self._thread.call(work)

    async def forget(self, before_ms: int, limit: int) -> int:
        def work(db: sqlite3.Connection) -> int:
            self._not_sure()
            gone = [
                db.execute(
                    "DELETE FROM ended WHERE n IN (SELECT n FROM ended ORDER BY n LIMIT ?) AND updated_ms < ?", (limit, before_ms)
                ).rowcount,
                db.execute(
                    "DELETE FROM started WHERE id IN (SELECT id FROM started WHERE updated_ms < ? LIMIT ?)", (before_ms, limit)
                ).rowcount,
                db.execute(
                    "DELETE FROM memos WHERE (id, name) IN (SELECT id, name FROM memos WHERE at_ms < ? ORDER BY at_ms LIMIT ?)",
                    (before_ms, limit),
                ).rowcount,
            ]
            joins = db.execute("SELECT join_id FROM joins WHERE since_ms < ? ORDER BY since_ms LIMIT ?", (before_ms, limit)).fetchall()
            for table in ("parts", "joins"):
                db.executemany(f"DELETE FROM {table} WHERE join_id = ?", joins)
            return max(*gone, len(joins))

        return await self._thread.call(work)

    async def memo(self, step_id: StepId, name: str) -> bytes | None:
        return await self._thread.call(lambda db: _memo(db, step_id, name))

    async def memoise(self, step_id: StepId, name: str, value: bytes) -> bytes:
        def work(db: sqlite3.Connection) -> bytes:
            db.execute("INSERT OR IGNORE INTO memos VALUES (?, ?, ?, ?)", (_key(step_id), name, value, self._now_ms()))
            kept = _memo(db, step_id, name)
            return value if kept is None else kept

        return await self._thread.call(work)

    async def join(self, parts: Sequence[Part]) -> Sequence[Join]:
        def work(db: sqlite3.Connection) -> Sequence[Join]:
            joins: list[Join] = []
            for part in parts:
                flow_id, at = part.place
                _open_join(db, part.join_id, part.place, self._now_ms())
                db.execute(
                    "INSERT OR IGNORE INTO parts SELECT ?, ?, ?, ?, ?, ?, ?, ? FROM joins WHERE join_id = ? AND state = ?",
                    (part.join_id, part.type, part.event_id, flow_id, *at, part.body, part.of, part.join_id, JoinState.OPEN.value),
                )
                db.execute(
                    "UPDATE joins SET state = ?, completed_by = ? WHERE join_id = ? AND state = ? "
                    "AND (SELECT count(*) FROM parts WHERE parts.join_id = joins.join_id) = ?",
                    (JoinState.FIRED.value, part.event_id, part.join_id, JoinState.OPEN.value, part.of),
                )
                joins += _joins(db, [part.join_id])
            return joins

        return await self._thread.call(work)

    async def expire_join(self, join_id: str, place: Place) -> Join:
        def work(db: sqlite3.Connection) -> Join:
            _open_join(db, join_id, place, self._now_ms())
            closing = "UPDATE joins SET state = ? WHERE join_id = ? AND state = ?"
            db.execute(closing, (JoinState.EXPIRED.value, join_id, JoinState.OPEN.value))
            [join] = _joins(db, [join_id])
            return join

        return await self._thread.call(work)

    async def joins(self, join_ids: Collection[str]) -> Mapping[str, Join]:
        return await self._thread.call(lambda db: {join.join_id: join for join in _joins(db, join_ids)})

    async def open_joins(self, partitions: Collection[TopicPartition]) -> Sequence[Join]:
        query = f"SELECT join_id FROM joins WHERE topic = ? AND partition = ? AND state = {JoinState.OPEN.value}"

        def work(db: sqlite3.Connection) -> Sequence[Join]:
            return list(_joins(db, [join_id for at in partitions for (join_id,) in db.execute(query, at)]))

        return await self._thread.call(work)

    def _find(self, db: sqlite3.Connection, keys: Mapping[StepId, bytes]) -> dict[StepId, tuple[Row, int]]:
        known = self._known
        if len(known) > _KNOWN_MAX:
            known.clear()
        unknown = {step_id: key for step_id, key in keys.items() if step_id not in known}
        found = {step_id: have for step_id in keys if (have := known.get(step_id)) is not None}
        if unknown:
            looked_up = _find(db, unknown)
            found.update(looked_up)
            known.update((step_id, None) for step_id in unknown if step_id not in looked_up)
        return found

    def _not_sure(self) -> None:
        self._known.clear()

    def _write(
        self,
        db: sqlite3.Connection,
        keys: Mapping[StepId, bytes],
        found: Mapping[StepId, tuple[Row, int]],
        changed: Mapping[StepId, Row],
    ) -> None:
        started, ended, index, over = [], [], [], []
        for step_id, row in changed.items():
            key = keys[step_id]
            line = _line(key, row)
            before = found.get(step_id)
            if row.step.state is State.STARTED:
                started.append(line)
                self._known[step_id] = row, 0
                if before is not None and before[1]:
                    over.append((key, before[1]))  # it had failed, and was given another chance
                continue
            self._known.pop(step_id, None)
            if before is not None:
                over.append((key, before[1]))
            ended.append((self._next, *line))
            index.append((_half(key), self._next))
            self._next += 1
        if over:
            # What has ended and changes once more moves to the end: the age of rows follows their numbers.
            db.executemany("DELETE FROM started WHERE id = ?", [(key,) for key, n in over if n == 0])
            db.executemany("DELETE FROM ended WHERE n = ?", [(n,) for _, n in over if n])
        if started:
            db.executemany(f"INSERT OR REPLACE INTO started ({_FIELDS}) VALUES ({_MARKS})", started)
        if ended:
            db.executemany(f"INSERT INTO ended (n, {_FIELDS}) VALUES (?, {_MARKS})", ended)
            db.executemany("INSERT INTO recent VALUES (?, ?)", index)
            self._unswept += len(ended)

    def _due(self) -> Work[None] | None:
        return None if self._unswept < _SWEEP_EVERY else self._sweep

    def _sweep(self, db: sqlite3.Connection) -> None:
        self._unswept -= _SWEEP_EVERY
        width = _HALVES // _SWEEP_PARTS
        low = self._sweep_part * width - _HALVES // 2
        self._sweep_part = (self._sweep_part + 1) % _SWEEP_PARTS
        part = {"low": low, "high": low + width - 1}
        for statement in SWEEP:
            db.execute(statement, part)
        self._clean(db, part)

    def _clean(self, db: sqlite3.Connection, part: Mapping[str, int]) -> None:
        if not self._cleaning_left:
            below, oldest = db.execute("SELECT below, coalesce((SELECT min(n) FROM ended), 0) FROM cleaned").fetchone()
            if oldest - below < _CLEAN_EVERY:
                return
            self._cleaning_left, self._cleaning_below = _SWEEP_PARTS, oldest
        db.execute(CLEAN, {**part, "below": self._cleaning_below})
        self._cleaning_left -= 1
        if not self._cleaning_left:
            db.execute("UPDATE cleaned SET below = ?", (self._cleaning_below,))


def _dead(owner: str) -> Death:
    return Death.CERTAIN


def _key(step_id: StepId) -> bytes:
    return bytes.fromhex(step_id.replace("-", ""))


def _half(key: bytes) -> int:
    return int.from_bytes(key[:8], "big", signed=True)


def _find(db: sqlite3.Connection, keys: Mapping[StepId, bytes]) -> dict[StepId, tuple[Row, int]]:
    """Each row with its number among those that have ended; 0: it is under way."""
    step_ids = {key: step_id for step_id, key in keys.items()}
    found: dict[StepId, tuple[Row, int]] = {}
    for some, marks in _chunks(list(step_ids)):
        for line in db.execute(f"SELECT {_FIELDS} FROM started WHERE id IN ({marks})", some):
            step_id = step_ids[line[0]]
            found[step_id] = _row(step_id, line), 0
        halves = [_half(key) for key in some]
        # CROSS JOIN: in this order, whatever the planner thinks of tables that it knows nothing about.
        query = (
            f"SELECT n, {_FIELDS} FROM (SELECT n AS at FROM recent WHERE half IN ({marks}) "
            f"UNION ALL SELECT n FROM old WHERE half IN ({marks})) CROSS JOIN ended ON n = at"
        )
        for n, *line in db.execute(query, halves + halves):
            ended_id = step_ids.get(line[0])
            if ended_id is not None:
                found[ended_id] = _row(ended_id, line), n
    return found


def _chunks(keys: Sequence[bytes]) -> Iterator[tuple[Sequence[bytes], str]]:
    """In a few sizes only, so that their statements stay prepared; the last key fills up."""
    at = 0
    while at < len(keys):
        size = next((size for size in (1, 8, 64, 512) if len(keys) - at <= size), 512)
        some = keys[at : at + size]
        yield [*some, *[some[-1]] * (size - len(some))], ", ".join("?" * size)
        at += size


def _line(key: bytes, row: Row) -> tuple[Any, ...]:
    step, (flow_id, at) = row.step, row.place
    return (
        key, _STATE_CODES[step.state], step.attempt, step.owner, step.lease_until_ms, step.alive_until_ms, step.acts,
        _EFFECT_CODES[step.effect], flow_id, at[0], at[1], row.updated_ms, row.outcome, row.undo, step.generation,
        int(step.turn),
    )  # fmt: skip


def _row(step_id: StepId, line: Sequence[Any]) -> Row:
    (_, state, attempt, owner, lease, alive, acts, effect, flow_id, topic, partition, updated_ms, outcome, undo, generation, turn) = line
    step = Step(_STATES[state], attempt, owner, lease, alive, bool(acts), _EFFECTS[effect], generation, _TURNS[turn])
    return Row(step_id, Place(FlowId(flow_id), TopicPartition(topic, partition)), step, updated_ms, outcome, undo)


def _memo(db: sqlite3.Connection, step_id: StepId, name: str) -> bytes | None:
    line = db.execute("SELECT value FROM memos WHERE id = ? AND name = ?", (_key(step_id), name)).fetchone()
    return None if line is None else bytes(line[0])


def _open_join(db: sqlite3.Connection, join_id: str, place: Place, now_ms: int) -> None:
    """Unless it is there."""
    flow_id, at = place
    opening = "INSERT OR IGNORE INTO joins VALUES (?, ?, ?, ?, ?, ?, NULL)"
    db.execute(opening, (join_id, flow_id, *at, JoinState.OPEN.value, now_ms))


def _joins(db: sqlite3.Connection, join_ids: Iterable[str]) -> Iterator[Join]:
    query = "SELECT flow_id, topic, partition, state, since_ms, completed_by FROM joins WHERE join_id = ?"
    for join_id in join_ids:
        line = db.execute(query, (join_id,)).fetchone()
        if line is None:
            continue
        flow_id, topic, partition, state, since_ms, completed_by = line
        place = Place(FlowId(flow_id), TopicPartition(topic, partition))
        parts = {
            type_: Part(join_id, Place(FlowId(flow_id), TopicPartition(topic, partition)), type_, EventId(event_id), body, of)
            for type_, event_id, flow_id, topic, partition, body, of in db.execute(
                "SELECT type, event_id, flow_id, topic, partition, body, needed FROM parts WHERE join_id = ?", (join_id,)
            )
        }
        yield Join(join_id, place, JoinState(state), since_ms, parts, completed_by)
