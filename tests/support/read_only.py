"""A PostgreSQL server that may only be read for a while, as after a failover to a standby."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg


@asynccontextmanager
async def read_only(address: str) -> AsyncIterator[None]:
    """Ends the sessions there are, as a failover does; later ones may only read, until this is left."""
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as db:
        await db.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
        try:
            ending = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name LIKE 'maypole %'"
            await db.execute(ending)
            yield
        finally:
            await db.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
