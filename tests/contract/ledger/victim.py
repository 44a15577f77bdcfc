"""A process that works on a ledger and is killed (SIGKILL) just before the n-th statement that it would send."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import psycopg

from maypole.bus.ledger.port import Ask, Part
from maypole.bus.ledger.transitions import UNWRITTEN, Begin, Finish
from maypole.bus.stores.postgres import open_postgres_ledger
from maypole.bus.stores.sqlite import open_sqlite_ledger
from maypole.schemas.identifiers import EventId
from tests.contract.ledger.stores import LEASE_MS, PLACE, SKEW_MS, Clock, step

STEPS = [step(number) for number in range(3)]
UNBEGUN = [step(number) for number in range(3, 6)]
JOINED, EXPIRED = "a join", "a join that expires"
FIRST, LAST, ALONE = (
    Part(join, PLACE, type_, EventId(type_), b"body", 2)
    for join, type_ in ((JOINED, "score.ready"), (JOINED, "income.verified"), (EXPIRED, "score.ready"))
)


class Countdown:
    def __init__(self, statements: int) -> None:
        self._left = statements

    def __call__(self, statement: object = None) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def run(store: str, statements: int, said: Path) -> None:
    """`store` is a file or a postgresql:// address with `#agent` behind it; `said` gets what was acknowledged, a word a line."""
    asyncio.run(_run(store, statements, said))


async def _run(store: str, statements: int, said: Path) -> None:
    def say(word: str) -> None:
        with said.open("a") as file:
            file.write(f"{word}\n")

    clock, count = Clock(), Countdown(statements)
    if store.startswith("postgresql://"):
        address, _, agent = store.partition("#")
        send = psycopg.AsyncConnection.execute

        async def counted(self: Any, *arguments: Any, **options: Any) -> Any:
            count()
            return await send(self, *arguments, **options)

        psycopg.AsyncConnection.execute = counted  # type: ignore[method-assign]
        opening: Any = open_postgres_ledger(address, agent, "one", clock)
    else:
        connect = sqlite3.connect

        def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
            db: sqlite3.Connection = connect(*arguments, **options)
            db.set_trace_callback(count)
            return db

        sqlite3.connect = traced  # type: ignore[assignment]
        opening = open_sqlite_ledger(Path(store), "one", clock)
    async with opening as ledger:
        begin = Begin("", clock.now_ms + LEASE_MS, clock.now_ms, SKEW_MS, acts=True)
        await ledger.ask([Ask(each, begin, PLACE) for each in STEPS])
        say("begun")
        await ledger.ask([Ask(each, Finish(1), PLACE, b"outcome") for each in STEPS])
        say("finished")
        await ledger.ask([Ask(each, Finish(UNWRITTEN), PLACE, b"outcome") for each in UNBEGUN])
        say("recorded")
        await ledger.memoise(STEPS[0], "charge", b"first")
        say("memoised")
        await ledger.join([FIRST, ALONE])
        say("joined")
        await ledger.join([LAST])
        say("fired")
        await ledger.expire_join(EXPIRED, PLACE)
        say("expired")
        clock.now_ms += 1
        await ledger.memoise(STEPS[1], "charge", b"younger")
        await ledger.forget(clock.now_ms, 100)
        say("forgotten")
    say("survived")
