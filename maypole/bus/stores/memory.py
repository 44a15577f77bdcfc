"""The ledger in memory: for tests and virtual time. Fails when a simulation says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from maypole.bus.ledger.deciding import decide, is_unsettled
from maypole.bus.ledger.port import Answer, Ask, Join, JoinState, LedgerUnavailable, Part, Place, Row
from maypole.bus.ledger.transitions import Death
from maypole.bus.memory.remote import carried_out
from maypole.bus.ports import TopicPartition
from maypole.schemas.identifiers import StepId

_Answer = TypeVar("_Answer")


def _never(call: str) -> bool:
    return False


def _at_once(call: str) -> float:
    return 0.0


@dataclass(slots=True)
class LedgerFaults:
    """What may go wrong, asked once per call with the name of the method."""

    refuse: Callable[[str], bool] = _never
    """Nothing is changed, and the call raises `LedgerUnavailable`."""

    lose_answer: Callable[[str], bool] = _never
    """The change is made, and the call raises `LedgerUnavailable`."""

    take: Callable[[str], float] = _at_once
    """Seconds of the loop's time before the call is carried out, which it is also when its caller has died meanwhile."""


@dataclass(slots=True)
class MemoryStore:
    """What outlives the instances of one agent. `now_ms` gives milliseconds since the epoch."""

    now_ms: Callable[[], int]
    faults: LedgerFaults = field(default_factory=LedgerFaults)
    dead: set[str] = field(default_factory=set)
    """Instances that are known to have ended; a dead one's ledger refuses every call."""
    presumed_dead: set[str] = field(default_factory=set)
    """Instances whose sessions are gone: they may live, and their calls are still carried out."""
    alive: set[str] = field(default_factory=set)
    steps: dict[StepId, Row] = field(default_factory=dict)
    memos: dict[tuple[StepId, str], tuple[bytes, int]] = field(default_factory=dict)
    joins: dict[str, Join] = field(default_factory=dict)

    def open(self, instance: str) -> MemoryLedger:
        return MemoryLedger(self, instance)


class MemoryStores:
    """A store for each agent, by name: what outlives all processes of a test. `now` gives seconds since the epoch."""

    def __init__(self, now: Callable[[], float], faults: LedgerFaults | None = None, *, shared: bool = False) -> None:
        """`shared`: several instances of an agent at a time, as on a database server, and nobody's death is certain."""
        self._shared = shared
        self._now = now
        self._faults = faults or LedgerFaults()
        self._stores: dict[str, MemoryStore] = {}
        self._opened = 0

    def of(self, agent: str) -> MemoryStore:
        if agent not in self._stores:
            self._stores[agent] = MemoryStore(lambda: int(self._now() * 1000), self._faults)
        return self._stores[agent]

    @asynccontextmanager
    async def open(self, agent: str, instance: str) -> AsyncIterator[MemoryLedger]:
        """Whoever leaves is dead, and so is, unless they share it, whoever was there before: as with one file, there is one at a time."""
        store = self.of(agent)
        self._opened += 1
        start = f"{instance}-{self._opened}"
        if not self._shared:
            store.dead.update(store.alive)
            store.alive.clear()
        store.alive.add(start)
        try:
            yield store.open(start)
        finally:
            store.dead.add(start)
            store.alive.discard(start)


class MemoryLedger:
    def __init__(self, store: MemoryStore, instance: str) -> None:
        self._store = store
        self.instance = instance

    async def ask(self, asks: Sequence[Ask]) -> Sequence[Answer]:
        def change(store: MemoryStore) -> Sequence[Answer]:
            answers, changed = decide(asks, store.steps, self.instance, self._death_of, store.now_ms())
            store.steps.update(changed)
            return answers

        return await self._call("ask", change)

    async def rows(self, step_ids: Collection[StepId]) -> Mapping[StepId, Row]:
        return await self._call("rows", lambda store: {each: store.steps[each] for each in step_ids if each in store.steps})

    async def unsettled(self, partitions: Collection[TopicPartition]) -> Sequence[Row]:
        return await self._call(
            "unsettled",
            lambda store: [
                row._replace(outcome=b"") for row in store.steps.values() if row.place.at in partitions and is_unsettled(row)
            ],
        )  # fmt: skip

    async def forget(self, before_ms: int, limit: int) -> int:
        def change(store: MemoryStore) -> int:
            steps = [step_id for step_id, row in store.steps.items() if row.updated_ms < before_ms][:limit]
            memos = [name for name, (_, at_ms) in store.memos.items() if at_ms < before_ms][:limit]
            joins = [join_id for join_id, join in store.joins.items() if join.since_ms < before_ms][:limit]
            for step_id in steps:
                del store.steps[step_id]
            for name in memos:
                del store.memos[name]
            for join_id in joins:
                del store.joins[join_id]
            return max(len(steps), len(memos), len(joins))

        return await self._call("forget", change)

    async def memo(self, step_id: StepId, name: str) -> bytes | None:
        return await self._call("memo", lambda store: store.memos.get((step_id, name), (None, 0))[0])

    async def memoise(self, step_id: StepId, name: str, value: bytes) -> bytes:
        return await self._call("memoise", lambda store: store.memos.setdefault((step_id, name), (value, store.now_ms()))[0])

    async def join(self, parts: Sequence[Part]) -> Sequence[Join]:
        def change(store: MemoryStore) -> Sequence[Join]:
            return [_joined(store, part) for part in parts]

        return await self._call("join", change)

    async def expire_join(self, join_id: str, place: Place) -> Join:
        def change(store: MemoryStore) -> Join:
            join = store.joins.get(join_id) or Join(join_id, place, JoinState.OPEN, store.now_ms(), {})
            if join.state is JoinState.OPEN:
                join = store.joins[join_id] = join._replace(state=JoinState.EXPIRED)
            return join

        return await self._call("expire_join", change)

    async def joins(self, join_ids: Collection[str]) -> Mapping[str, Join]:
        return await self._call("joins", lambda store: {each: store.joins[each] for each in join_ids if each in store.joins})

    async def open_joins(self, partitions: Collection[TopicPartition]) -> Sequence[Join]:
        return await self._call(
            "open_joins",
            lambda store: [join for join in store.joins.values() if join.state is JoinState.OPEN and join.place.at in partitions],
        )

    def _death_of(self, owner: str) -> Death:
        if owner in self._store.dead:
            return Death.CERTAIN
        return Death.PRESUMED if owner in self._store.presumed_dead else Death.UNKNOWN

    async def _call(self, name: str, change: Callable[[MemoryStore], _Answer]) -> _Answer:
        faults = self._store.faults

        def carry_out() -> _Answer:
            if self.instance in self._store.dead:
                raise LedgerUnavailable(f"{self.instance} is dead: its ledger refuses {name}")
            if faults.refuse(name):
                raise LedgerUnavailable(f"the ledger in memory was told to refuse {name}")
            return change(self._store)

        found = await carried_out(faults.take(name), carry_out)
        if faults.lose_answer(name):
            raise LedgerUnavailable(f"the ledger in memory was told to lose the answer of {name}")
        return found


def _joined(store: MemoryStore, part: Part) -> Join:
    join = store.joins.get(part.join_id) or Join(part.join_id, part.place, JoinState.OPEN, store.now_ms(), {})
    if join.state is JoinState.OPEN and part.type not in join.parts:
        join = join._replace(parts={**join.parts, part.type: part})
        if len(join.parts) == part.of:
            join = join._replace(state=JoinState.FIRED, completed_by=part.event_id)
        store.joins[part.join_id] = join
    return join
