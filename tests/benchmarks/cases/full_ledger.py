"""What a million rows in its ledger cost an agent: its rate and its start, in SQLite and PostgreSQL, and forgetting rows meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from itertools import product
from pathlib import Path
from typing import Final

from deploy.local.faults import NotHere
from deploy.local.postgres import Postgres
from maypole.bus.composition import open_platform
from maypole.bus.ledger.port import Ledger
from maypole.bus.recording import BETWEEN_BITES_SECONDS, BITE
from maypole.bus.stores.opening import open_ledger
from maypole.settings import Settings
from tests.benchmarks.agents import RECORDED
from tests.benchmarks.bench import Bench, measure, say
from tests.benchmarks.cases.ledger import BATCH, ROWS, fill, finish, ids, now_ms
from tests.benchmarks.events import Answered, Asked
from tests.benchmarks.order import Order
from tests.benchmarks.prepare import create_topics, pin_choreography, rewind, trim
from tests.benchmarks.prepare import fill as fill_topic
from tests.benchmarks.rows import Floor, Row, row

NAME: Final = "full-ledger"
EMPTY, MILLION, FORGETTING = "empty", "a million rows", "a million rows, the oldest being forgotten"
RATE, START, LONGEST = "throughput", "start and stop", "longest batch"
_UNITS: Final = {RATE: "events/s", START: "s", LONGEST: "ms"}
_ROWS_PER_SECOND: Final = "rows/s"
_BATCHES: Final = 60
_STALL_MS: Final = 250.0

Open = Callable[[str], AbstractAsyncContextManager[Ledger]]
Found = dict[tuple[str, str, str], list[float]]
"""By store, by what the ledger holds, by metric: a value a round."""


def run(bench: Bench) -> tuple[list[Row], list[Floor]]:
    create_topics(bench.kafka, [Asked.event_type, Answered.event_type])
    choreography = pin_choreography(bench.kafka, bench.folder / "home", Asked)
    found: Found = {}
    with ExitStack() as servers:
        homes = {("sqlite", size): (bench.folder / size, "sqlite") for size in (EMPTY, MILLION)}
        try:
            for size in (EMPTY, MILLION):
                server = Postgres(bench.folder / "logs")
                servers.callback(server.stop)
                server.start()
                homes["postgresql", size] = bench.folder / f"{size} beside", server.address
        except NotHere as reason:
            say(f"{NAME}: without PostgreSQL: {reason}")
        for (name, size), (home, store) in homes.items():
            if size == MILLION:
                say(f"{NAME}: writing {ROWS:,} rows into {name}")
                asyncio.run(_fill(bench, home, store))
        long_ago = now_ms()
        for number in range(bench.rounds):
            # Other events in each round: what a ledger knows is only published again.
            trim(bench.kafka, Asked.event_type)
            fill_topic(bench.kafka, Asked.event_type, Asked, choreography, bench.events)
            for (name, size), (home, store) in homes.items():
                if size == EMPTY:
                    asyncio.run(_emptied(bench, home, store))
                for metric, value in _hop(bench, home, store).items():
                    found.setdefault((name, size, metric), []).append(value)
                    say(f"{NAME} {number + 1}/{bench.rounds}: {name}, {size}: {metric} {value:,.3g} {_UNITS[metric]}")
            for (name, size), before_ms in product([each for each in homes if each[1] == MILLION], (0, long_ago)):
                rate, longest = asyncio.run(_alone(bench, *homes[name, size], before_ms))
                what = FORGETTING if before_ms else size
                found.setdefault((name, what, _ROWS_PER_SECOND), []).append(rate)
                found.setdefault((name, what, LONGEST), []).append(longest)
                say(f"{NAME} {number + 1}/{bench.rounds}: {name} alone, {what}: {rate:,.0f} rows/s, the longest batch {longest:.0f} ms")
    return _rows(found), _floors(found)


def _hop(bench: Bench, home: Path, store: str) -> dict[str, float]:
    """One agent from its start to its end, with all events of this round."""
    rewind(bench.kafka, RECORDED, Asked.event_type)
    order = Order(
        bench.kafka, Asked.event_type, Answered.event_type, RECORDED, bench.events, RECORDED, home=str(home), store=store
    )  # fmt: skip
    began = time.perf_counter()
    report = measure("maypole", order)
    return {RATE: report.events_per_second, START: time.perf_counter() - began - report.seconds}


async def _fill(bench: Bench, home: Path, store: str) -> None:
    async with await _opened(bench, home, store) as ledger:
        await fill(ledger)


async def _emptied(bench: Bench, home: Path, store: str) -> None:
    """Of what the round before has left."""
    async with await _opened(bench, home, store) as ledger:
        while await ledger.forget(now_ms() + 1, BATCH):
            pass


async def _alone(bench: Bench, home: Path, store: str, before_ms: int) -> tuple[float, float]:
    """Rows a second, and the milliseconds of the longest batch, while rows that are older are forgotten as an agent does it."""
    async with await _opened(bench, home, store) as ledger:

        async def forget() -> None:
            while True:
                await ledger.forget(before_ms, BITE)
                await asyncio.sleep(BETWEEN_BITES_SECONDS)

        forgetting = asyncio.create_task(forget())
        batches, longest = [ids(BATCH) for _ in range(_BATCHES)], 0.0
        began = time.perf_counter()
        for steps in batches:
            since = time.perf_counter()
            await finish(ledger, steps)
            longest = max(longest, time.perf_counter() - since)
        rate = BATCH * _BATCHES / (time.perf_counter() - began)
        forgetting.cancel()
        await asyncio.wait([forgetting])
        return rate, longest * 1000


async def _opened(bench: Bench, home: Path, store: str) -> AbstractAsyncContextManager[Ledger]:
    """The ledger that the agent of this home uses."""
    async with open_platform(Settings(home=home, kafka=bench.kafka)) as platform:
        folder = platform.home / "agents" / RECORDED
    folder.mkdir(parents=True, exist_ok=True)
    return open_ledger(store, folder, RECORDED, "bench", now_ms)


def _rows(found: Found) -> list[Row]:
    rows = []
    for (name, size, metric), values in found.items():
        of = {MILLION: EMPTY, FORGETTING: MILLION}.get(size, "")
        others = found.get((name, of, metric), [])
        rows.append(row(NAME, f"{name}, {size}", metric, _UNITS.get(metric, metric), values, f"{name}, {of}", others))
    return rows


def _floors(found: Found) -> list[Floor]:
    """By a tenth at most, and what is forgotten keeps nobody waiting."""
    floors = []
    for name in dict.fromkeys(name for name, _, _ in found):

        def ratio(metric: str, name: str = name) -> float | None:
            return row(NAME, "", "", "", found[name, MILLION, metric], EMPTY, found[name, EMPTY, metric]).ratio

        floors.append(Floor(f"{name}: {RATE} with {MILLION} against {EMPTY}", ratio(RATE), at_least=0.9))
        floors.append(Floor(f"{name}: {START} with {MILLION} against {EMPTY}", ratio(START), at_most=1.1))
        longest = row(NAME, "", "", "", found[name, FORGETTING, LONGEST]).value
        bound = row(NAME, "", "", "", found[name, MILLION, LONGEST]).value + _STALL_MS
        floors.append(Floor(f"{name}: ms of the {LONGEST} while rows are forgotten", longest, at_most=bound))
    return floors
