"""Which store a coordinator keeps: a file in the home of its cluster, or the database that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from maypole.bus.ledger.port import LedgerError
from maypole.services.coordinator.stores.port import Store
from maypole.services.coordinator.stores.sqlite import open_sqlite_store

FILE: Final = "sagas.sqlite3"


@asynccontextmanager
async def open_store(store: str, home: Path, cluster_id: str) -> AsyncIterator[Store]:
    """`store` as `Settings.store` has it; `home` is the cluster's folder.

    Raises `LedgerError` where the client of the database is not installed, and what every call of the port raises.
    """
    if store == "sqlite":
        async with open_sqlite_store(home / "coordinator" / FILE) as kept:
            yield kept
        return
    try:
        from maypole.services.coordinator.stores.postgres import open_postgres_store
    except ImportError as error:
        raise LedgerError(
            f"MAYPOLE_STORE names a PostgreSQL database and its client cannot be imported ({error}): "
            "install it with `pip install 'maypole[postgres]'`, or set MAYPOLE_STORE to sqlite"
        ) from error
    async with open_postgres_store(store, cluster_id) as shared:
        yield shared
