"""What the coordinator does in a second on one core with SQLite, beside decoding the same records and doing nothing.

Processor time of this process, so that a busy machine changes it little. The journal is made up here: no broker is asked.

Many open flows are flows half-way: started, and two of their four steps completed. A flow of which only the start was folded takes
about a third of the memory and is written in half the time, so it would show nothing of what grows later.

What open flows cost a record shows where the same records, of ten flows at a time, are folded alone and beside a hundred thousand that
are open. Where all of these move at once, in any order, a record costs more for another reason: a flow is written once for nearly every
record then, and once for nine where its records come close together.

Memory is told twice: of the objects of a flow in memory, which is much the same on every machine, and what the process takes from the
system for each of all that are open, with what its allocators and SQLite keep.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

from maypole.bus.choreography import Choreography, derive_choreography
from maypole.bus.journal import JournalRecords
from maypole.bus.ports import Delivery
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Reader
from maypole.schemas.envelope import lineage
from maypole.schemas.event import Event
from maypole.schemas.identifiers import FlowId, new_flow_id, output_event_id, root_event_id, root_traceparent, step_id_of
from maypole.schemas.journal import RECORDS, Effect, FlowStarted, Produced, StepCompleted, StepStarted
from maypole.schemas.topics import JOURNAL
from maypole.services.coordinator.due_times import DueTimes
from maypole.services.coordinator.folding import Counts, Folding
from maypole.services.coordinator.reading import Bodies, read_head
from maypole.services.coordinator.service import BATCH_MAX, UNSAVED_MAX
from maypole.services.coordinator.stores.sqlite import open_sqlite_store
from maypole.services.garbage import relax_collector
from maypole.services.saga.packing import VERSION
from tests.benchmarks.bench import Bench, say
from tests.benchmarks.rows import Floor, Row, row

NAME: Final = "coordinator"
_AT_MS: Final = 1_767_225_600_000
_RECORDS_A_MS: Final = 10
_NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
_FEW, _MANY = 10, 100_000
_RECORDS: Final = 100_000
_OF_MANY: Final = 50_000
"""Records in a round: after three of them most of the flows are still under way."""
_HALF_WAY_RECORDS: Final = 5
_IN_MEMORY: Final = 30_000
"""Few enough that all of them stay there."""
_CHAIN: Final = (("one", "a.asked", "b.made"), ("two", "b.made", "c.made"), ("three", "c.made", "d.made"), ("four", "d.made", None))


def _choreography() -> Choreography:
    return derive_choreography(
        "a.asked",
        [{"name": agent, "subscriptions": [{"on": on, "emits": [emits] if emits else [], "kind": "undo"}]} for agent, on, emits in _CHAIN],
    )


class _Journal:
    """Records of flows of four steps, as agents write them."""

    def __init__(self, choreography: Choreography) -> None:
        self._hash = choreography.hash
        self._records = JournalRecords("/agents/any")
        self.end = 0

    def flow(self) -> Iterator[tuple[FlowId, Event]]:
        flow = new_flow_id()
        event, digest = root_event_id(flow, "a.asked"), bytes(32)
        root = Produced(event_id=event, type="a.asked", digest=digest)
        yield flow, FlowStarted(choreography=self._hash, deadline_ms=3_600_000, roots=(root,))
        for agent, on, emits in _CHAIN:
            step_id, parents = step_id_of(flow, agent, on, event), (event,)
            outputs: tuple[Produced, ...] = ()
            if emits is not None:
                event = output_event_id(step_id, emits, 0)
                outputs = (Produced(event_id=event, type=emits, digest=digest),)
            yield flow, StepStarted(step_id=step_id, agent=agent, subscription=on, parents=parents, attempt=1, lease_until=_NOON)
            yield (
                flow,
                StepCompleted(step_id=step_id, agent=agent, subscription=on, parents=parents, effect=Effect.APPLIED, outputs=outputs),
            )

    def written(self, flow: FlowId, body: Event) -> Delivery:
        key = flow.encode()
        common = lineage(flow_id=key, time=b"2026-01-01T00:00:00.000000Z", state_version=1, choreography=self._hash.encode())
        about = str(getattr(body, "step_id", flow))
        record = self._records.record(body, about, key, root_traceparent(flow), None, common)
        self.end += 1
        return Delivery(JOURNAL, 0, self.end - 1, _AT_MS + self.end // _RECORDS_A_MS, record.key, record.value, record.headers)

    def at_random(self, flows: Sequence[Iterator[tuple[FlowId, Event]]], records: int) -> list[Delivery]:
        """The next record of any of the flows, so many times."""
        found = (next(flow, None) for flow in random.choices(flows, k=records))
        return [self.written(*each) for each in found if each is not None]

    def in_turn(self, flows: Sequence[Iterator[tuple[FlowId, Event]]], records: int) -> Iterator[Delivery]:
        """So many records of each flow, the flows in any order."""
        return (self.written(*next(each)) for _ in range(records) for each in random.sample(flows, len(flows)))


class _Readers:
    """In the place of `Contracts`: every schema is known."""

    def __init__(self) -> None:
        self._known = {record: Reader(schema_of(record), record) for record in RECORDS}

    async def reader(self, event: type[Event], schema_id: int) -> Any:
        return self._known[event]


async def _decoded(records: Sequence[Delivery]) -> float:
    """Records a second."""
    bodies = Bodies(_Readers())  # type: ignore[arg-type]
    began = time.process_time()
    for record in records:
        await bodies.read(read_head(record), record)
    return len(records) / (time.process_time() - began)


async def _nobody(choreography: str) -> None: ...


async def _timed(folding: Folding, records: Sequence[Delivery]) -> float:
    """Records a second."""
    gc.collect()
    began = time.process_time()
    await _fold(folding, records)
    return len(records) / (time.process_time() - began)


@dataclass
class _Rounds:
    """Records a second, and seconds from opening the store until a first batch is folded, whose flows are read from it."""

    decode: list[float] = field(default_factory=list)
    few: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    many: list[float] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)


async def _rounds(bench: Bench, choreography: Choreography) -> _Rounds:
    found = _Rounds()
    store = bench.folder / "coordinator-many.sqlite3"
    journal = _Journal(choreography)
    flows = [journal.flow() for _ in range(_MANY)]
    async with _folding(store, choreography) as folding:
        say(f"  {NAME}: {_MANY} flows on their way")
        await _fold(folding, journal.in_turn(flows, _HALF_WAY_RECORDS))
        for number in range(bench.rounds):
            say(f"  {NAME}: round {number + 1} of {bench.rounds}")
            records = _few_at_a_time(_Journal(choreography))
            found.decode.append(await _decoded(records))
            async with _folding(bench.folder / f"coordinator-few-{number}.sqlite3", choreography) as few:
                found.few.append(await _timed(few, records))
            found.beside.append(await _timed(folding, _few_at_a_time(journal)))
            found.many.append(await _timed(folding, journal.at_random(flows, _OF_MANY)))
    for _ in range(bench.rounds):
        first = journal.at_random(flows, BATCH_MAX)
        opened = time.perf_counter()
        async with _folding(store, choreography) as folding:
            await folding.fold(first)
            found.restarts.append(time.perf_counter() - opened)
            await folding.save()
    return found


def _few_at_a_time(journal: _Journal) -> list[Delivery]:
    waves = [journal.in_turn([journal.flow() for _ in range(_FEW)], 9) for _ in range(_RECORDS // (_FEW * 9))]
    return [record for wave in waves for record in wave]


async def _grown(path: Path, choreography: Choreography, records: Iterable[Delivery], taken: Callable[[], int]) -> int:
    """By how many bytes of memory, as `taken` counts them, folding these records has made the process grow."""
    gc.collect()
    before = taken()
    async with _folding(path, choreography) as folding:
        await _fold(folding, records)
        gc.collect()
        return taken() - before


@asynccontextmanager
async def _folding(path: Path, choreography: Choreography) -> AsyncIterator[Folding]:
    async with open_sqlite_store(path) as store:
        taken = await store.take(0, VERSION)
        bodies, known = Bodies(_Readers()), {choreography.hash: choreography}  # type: ignore[arg-type]
        folding = Folding(0, taken, 0, store, bodies, known, _nobody, Counts(), DueTimes(600_000, lambda *_: 300.0))
        await folding.restore()
        yield folding


async def _fold(folding: Folding, records: Iterable[Delivery]) -> None:
    """As the service does while more is waiting."""
    waiting = iter(records)
    while batch := list(islice(waiting, BATCH_MAX)):
        await folding.fold(batch)
        if folding.unsaved >= UNSAVED_MAX:
            await folding.save()
    await folding.save()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _fetched(records: Iterable[Delivery]) -> Iterator[Delivery]:
    """As a client gives them: each with a time of its own. One that whoever holds the records keeps alive would be counted nowhere."""
    return (record._replace(timestamp_ms=int(str(record.timestamp_ms))) for record in records)


def _memory_of_each(folder: Path, choreography: Choreography) -> tuple[float, float]:
    """Bytes for one flow half-way: of its objects in memory, and resident for each of all that are open."""
    journal = _Journal(choreography)
    flows = [journal.flow() for _ in range(_MANY)]  # kept until the end: memory that they left would be used again, and not be seen
    records = list(journal.in_turn(flows, _HALF_WAY_RECORDS))
    resident = asyncio.run(_grown(folder / "resident.sqlite3", choreography, _fetched(records), _resident))
    fewer = list(journal.in_turn([journal.flow() for _ in range(_IN_MEMORY)], _HALF_WAY_RECORDS))
    tracemalloc.start()
    try:
        objects = asyncio.run(_grown(folder / "objects.sqlite3", choreography, _fetched(fewer), lambda: tracemalloc.get_traced_memory()[0]))
    finally:
        tracemalloc.stop()
    return objects / _IN_MEMORY, resident / _MANY


def run(bench: Bench) -> tuple[list[Row], list[Floor]]:
    choreography = _choreography()
    relax_collector()  # as `maypole coordinator` does
    # Before all else: memory that others leave would be used again, and not be seen.
    objects, resident = _memory_of_each(bench.folder / "coordinator-memory", choreography)
    found = asyncio.run(_rounds(bench, choreography))
    rows = [
        row(NAME, "decode and do nothing", "rate", "records/s", found.decode),
        row(NAME, f"{_FEW} open flows", "rate", "records/s", found.few, "decode and do nothing", found.decode),
        row(NAME, f"the same beside {_MANY} open", "rate", "records/s", found.beside, f"{_FEW} open flows", found.few),
        row(NAME, f"{_MANY} that move at once", "rate", "records/s", found.many, f"{_FEW} open flows", found.few),
        row(NAME, f"{_MANY} flows half-way", "restart", "s", found.restarts),
        row(NAME, "a flow in memory", "objects", "bytes", [objects]),
        row(NAME, f"each of {_MANY} half-way", "resident", "bytes", [resident]),
    ]
    floors = [
        Floor("coordinator: records/s on one core", rows[1].value, at_least=10_000),
        Floor(f"coordinator: its rate beside {_MANY} open flows, of that alone", rows[2].ratio, at_least=0.8),
        Floor(f"coordinator: records/s on one core, {_MANY} flows that move at once", rows[3].value, at_least=10_000),
        Floor(f"coordinator: seconds to restart with {_MANY} flows half-way", rows[4].value, at_most=10),
        Floor("coordinator: bytes of objects for a flow half-way through four steps", rows[5].value, at_most=2048),
        Floor(f"coordinator: bytes that the process takes for each of {_MANY}", rows[6].value, at_most=2048),
    ]
    return rows, floors
