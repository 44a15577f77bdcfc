"""A process that works on a ledger and is killed (SIGKILL) just before the n-th statement that it would send.

`python -m tests.contract.ledger.victim STORE N`: STORE is a file or a postgresql:// address with `#agent` behind it.
Prints what was acknowledged, a word a line.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import psycopg

from maypole.bus.ledger.port import Ask
from maypole.bus.ledger.transitions import UNWRITTEN, Begin, Finish
from maypole.bus.stores.postgres import open_postgres_ledger
from maypole.bus.stores.sqlite import open_sqlite_ledger
from tests.contract.ledger.stores import LEASE_MS, PLACE, SKEW_MS, Clock, step

STEPS = [step(number) for number in range(3)]
UNBEGUN = [step(number) for number in range(3, 6)]


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


class Countdown:
    def __init__(self, statements: int) -> None:
        self._left = statements

    def __call__(self, statement: object = None) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(store: str, statements: int) -> None:
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
    say("survived")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
