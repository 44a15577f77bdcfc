"""Which store keeps the ledger of an agent: a file in its home, or the database that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from maypole.bus.ledger.port import Ledger, LedgerError
from maypole.bus.stores.sqlite import open_sqlite_ledger

FILE: Final = "ledger.sqlite3"


@asynccontextmanager
async def open_ledger(store: str, home: Path, agent: str, instance: str, now_ms: Callable[[], int]) -> AsyncIterator[Ledger]:
    """`store` as `Settings.store` has it; `home` is the agent's own folder; `instance` is new at each start.

    Raises `LedgerInUse`, `LedgerError` where the client of the database is not installed, and what every call of the port raises.
    """
    if store == "sqlite":
        async with open_sqlite_ledger(home / FILE, instance, now_ms) as ledger:
            yield ledger
        return
    try:
        # Here, because its client is an extra, and takes 0.1 s to import.
        from maypole.bus.stores.postgres import open_postgres_ledger
    except ImportError as error:
        raise LedgerError(
            f"MAYPOLE_STORE names a PostgreSQL database and its client cannot be imported ({error}): "
            "install it with `pip install 'maypole[postgres]'`, or set MAYPOLE_STORE to sqlite"
        ) from error
    async with open_postgres_ledger(store, agent, instance, now_ms) as shared:
        yield shared
