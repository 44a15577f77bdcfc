"""The step ledger alone: rows per second in batches of 500, empty and with a million rows, and how long it takes to open."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from maypole.bus.ledger.outcome import encode_records
from maypole.bus.ledger.port import Ask, Ledger, Place
from maypole.bus.ledger.transitions import UNWRITTEN, Begin, Finish
from maypole.bus.ports import Record, TopicPartition
from maypole.bus.stores.sqlite import Synchronous, open_sqlite_ledger
from maypole.schemas.identifiers import FlowId, StepId
from tests.benchmarks.bench import Bench, say
from tests.benchmarks.rows import Floor, Row, row

NAME: Final = "ledger"
EMPTY, FULL, NORMAL, MILLION = "empty", "sqlite, synchronous=FULL", "sqlite, synchronous=NORMAL", "a million rows"
BATCH: Final = 500
_BATCHES: Final = 60
ROWS: Final = 1_000_000
_PLACE: Final = Place(FlowId(str(UUID(int=7))), TopicPartition("bench.asked", 0))

Work = Callable[[Ledger, Sequence[StepId]], Awaitable[object]]


def run(bench: Bench) -> tuple[list[Row], list[Floor]]:
    bench.folder.mkdir(parents=True, exist_ok=True)
    full_path = bench.folder / "million.sqlite3"
    say(f"{NAME}: writing {ROWS:,} rows")
    asyncio.run(_fill(full_path))
    rates: dict[tuple[str, str, str], list[float]] = {}
    opened: dict[str, list[float]] = {EMPTY: [], MILLION: []}
    for number in range(bench.rounds):
        empty_path = bench.folder / f"empty-{number}.sqlite3"
        for size, path in ((EMPTY, empty_path), (MILLION, full_path)):
            for synchronous, subject in (("NORMAL", NORMAL), ("FULL", FULL)):
                for metric, work in (("begin and finish", _begin_and_finish), ("finish only", finish)):
                    rate = asyncio.run(_rate(path, synchronous, work))  # type: ignore[arg-type]
                    rates.setdefault((size, subject, metric), []).append(rate)
                    say(f"{NAME} {number + 1}/{bench.rounds}: {subject}, {size}, {metric}: {rate:,.0f} rows/s")
        for size, path in ((EMPTY, empty_path), (MILLION, full_path)):
            opened[size].append(asyncio.run(_milliseconds_to_open(path)))
    rows = []
    for (size, subject, metric), found in rates.items():
        against = rates[EMPTY, subject, metric] if size == MILLION else []
        rows.append(row(NAME, f"{subject}, {size}", metric, "rows/s", found, f"{subject}, {EMPTY}", against))
    rows.append(row(NAME, f"sqlite, {EMPTY}", "open", "ms", opened[EMPTY]))
    rows.append(row(NAME, f"sqlite, {MILLION}", "open", "ms", opened[MILLION], f"sqlite, {EMPTY}", opened[EMPTY]))
    floors = [
        Floor(f"{each.subject}, {each.metric}, against {EMPTY}", each.ratio, at_least=0.9)
        for each in rows
        if each.unit == "rows/s" and each.ratio is not None
    ]
    return rows, [*floors, Floor(f"ms to open with {MILLION}", rows[-1].value, at_most=rows[-2].value + 20)]


def _outcome() -> bytes:
    """As a step of the other cases leaves it: the journal record and one output."""
    headers = [(f"ce_{name}", b"8d0d3ef2-4b2e-5a53-9d5a-0c4fb2f5d0a1") for name in ("id", "type", "source", "correlationid", "causationid")]
    return encode_records([Record(topic, b"k" * 36, os.urandom(250), headers) for topic in ("maypole.journal", "bench.answered")])


def ids(count: int) -> list[StepId]:
    return [StepId(str(UUID(bytes=os.urandom(16)))) for _ in range(count)]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _fill(path: Path) -> None:
    async with open_sqlite_ledger(path, "filling", now_ms, "NORMAL") as ledger:
        await fill(ledger)


async def fill(ledger: Ledger) -> None:
    """A million steps that came to their end."""
    for _ in range(ROWS // 5_000):
        await finish(ledger, ids(5_000))


async def _begin_and_finish(ledger: Ledger, steps: Sequence[StepId]) -> None:
    now = now_ms()
    await ledger.ask([Ask(step, Begin("", now + 60_000, now, 0, True), _PLACE) for step in steps])
    await ledger.ask([Ask(step, Finish(1), _PLACE, _OUTCOME) for step in steps])


async def finish(ledger: Ledger, steps: Sequence[StepId]) -> None:
    await ledger.rows(steps)
    await ledger.ask([Ask(step, Finish(UNWRITTEN), _PLACE, _OUTCOME) for step in steps])


async def _rate(path: Path, synchronous: Synchronous, work: Work) -> float:
    async with open_sqlite_ledger(path, "bench", now_ms, synchronous) as ledger:
        batches = [ids(BATCH) for _ in range(_BATCHES)]
        began = time.perf_counter()
        for steps in batches:
            await work(ledger, steps)
        return BATCH * _BATCHES / (time.perf_counter() - began)


async def _milliseconds_to_open(path: Path) -> float:
    began = time.perf_counter()
    async with open_sqlite_ledger(path, "opening", now_ms) as ledger:
        await ledger.unsettled([_PLACE.at])
        return (time.perf_counter() - began) * 1000


_OUTCOME: Final = _outcome()
