"""What only a server can suffer: a restart in the middle, an instance that lives on without its session."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, LiteralString

import psycopg
import pytest

from deploy.local.postgres import Postgres
from maypole.bus.ledger.port import LedgerCorrupt, LedgerUnavailable, Part
from maypole.bus.ledger.step import State
from maypole.bus.ledger.transitions import UNWRITTEN, Finish, Retry, Verdict
from maypole.bus.stores import postgres_schema
from maypole.bus.stores.postgres import open_postgres_ledger
from maypole.bus.stores.postgres_schema import Tables
from maypole.bus.stores.postgres_session import PostgresSession
from maypole.schemas.identifiers import EventId
from tests.contract.ledger.stores import LEASE_MS, PLACE, SKEW_MS, Clock, another_process, ask, postgres_world, step
from tests.support.names import unique_agent
from tests.support.read_only import read_only


async def test_a_server_that_restarts_is_waited_for_and_nothing_is_lost(postgres: Postgres) -> None:
    world = postgres_world(postgres.address, unique_agent())
    async with world.open("one") as ledger:
        await ask(ledger, "before", Finish(UNWRITTEN), b"kept")
        postgres.kill()
        with pytest.raises(LedgerUnavailable, match="cannot be used now"):
            await ask(ledger, "s", Finish(UNWRITTEN))
        await asyncio.to_thread(postgres.start)
        assert (await ask(ledger, "s", Finish(UNWRITTEN))).verdict is Verdict.RECORDED
        again = await ask(ledger, "before", Finish(UNWRITTEN))
        assert again.verdict is Verdict.REPUBLISH and again.row is not None and again.row.outcome == b"kept"


async def test_a_server_that_may_only_be_read_is_waited_for_and_nothing_is_lost(postgres: Postgres) -> None:
    world = postgres_world(postgres.address, unique_agent())
    async with world.open("one") as ledger:
        await ask(ledger, "before", Finish(UNWRITTEN), b"kept")
        async with read_only(postgres.address):
            with pytest.raises(LedgerUnavailable, match="cannot be used now"):  # its session was ended
                await ask(ledger, "s", Finish(UNWRITTEN))
            with pytest.raises(LedgerUnavailable, match="read-only transaction; is it a standby"):
                await ask(ledger, "s", Finish(UNWRITTEN))
        assert (await ask(ledger, "s", Finish(UNWRITTEN))).verdict is Verdict.RECORDED
        again = await ask(ledger, "before", Finish(UNWRITTEN))
        assert again.verdict is Verdict.REPUBLISH and again.row is not None and again.row.outcome == b"kept"


async def test_a_session_that_may_only_read_is_left_for_a_new_one(postgres: Postgres) -> None:
    async with postgres_world(postgres.address, unique_agent()).open("one") as ledger:
        db = ledger._session._connection  # type: ignore[attr-defined]
        await db.execute("SET default_transaction_read_only = on")
        with pytest.raises(LedgerUnavailable, match="read-only transaction"):
            await ask(ledger, "s", Finish(UNWRITTEN))
        assert (await ask(ledger, "s", Finish(UNWRITTEN))).verdict is Verdict.RECORDED


async def test_a_transaction_that_stood_still_for_too_long_is_asked_for_again(postgres: Postgres) -> None:
    session = PostgresSession(postgres.address, unique_agent(), None)

    async def stand_still(db: psycopg.AsyncConnection[Any]) -> None:
        await db.execute("SET LOCAL idle_in_transaction_session_timeout = '10ms'")
        await asyncio.sleep(0.5)
        await db.execute("SELECT 1")

    async def answer(db: psycopg.AsyncConnection[Any]) -> None:
        await db.execute("SELECT 1")

    with pytest.raises(LedgerUnavailable, match="idle-in-transaction timeout"):
        await session.call(stand_still)
    await session.call(answer)
    await session.close()


@pytest.mark.parametrize("state", ["54000", "54001", "54011", "54023"])
async def test_what_a_server_will_never_take_is_not_waited_for(postgres: Postgres, state: str) -> None:
    session = PostgresSession(postgres.address, unique_agent(), None)

    async def refused(db: psycopg.AsyncConnection[Any]) -> None:
        await db.execute(f"DO $$ BEGIN RAISE EXCEPTION 'too much' USING ERRCODE = '{state}'; END $$")

    with pytest.raises(LedgerCorrupt, match="the server will never take what it was asked to write: too much; waiting does not help"):
        await session.call(refused)
    await session.close()


@pytest.mark.parametrize(
    "state",
    [
        pytest.param("25P04", id="the transaction took longer than transaction_timeout allows"),
        pytest.param("53300", id="there are too many sessions"),
        pytest.param("55P03", id="a lock was waited for in vain"),
        pytest.param("57014", id="the statement was cancelled"),
        pytest.param("57P01", id="the server is shut down"),
        pytest.param("57P02", id="another session crashed"),
        pytest.param("57P03", id="the server is starting up"),
        pytest.param("57P05", id="the session was idle for too long"),
        pytest.param("58030", id="its disk refuses"),
    ],
)
async def test_what_a_server_says_that_ends_without_us_is_waited_for(postgres: Postgres, state: str) -> None:
    session = PostgresSession(postgres.address, unique_agent(), None)

    async def refused(db: psycopg.AsyncConnection[Any]) -> None:
        # The server itself answers with this state: not every release has the setting, and no test may wait for the event.
        await db.execute(f"DO $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{state}'; END $$")

    async def answer(db: psycopg.AsyncConnection[Any]) -> None:
        await db.execute("SELECT 1")

    with pytest.raises(LedgerUnavailable, match="the server cannot be used now: not now"):
        await session.call(refused)
    await session.call(answer)
    await session.close()


async def test_a_right_that_is_missing_is_named_and_needs_no_restart_once_it_is_given(postgres: Postgres) -> None:
    agent, user = unique_agent(), "maypole_reader"
    world = postgres_world(postgres.address.replace("//postgres@", f"//{user}@"), agent)
    rights = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
    async with (
        postgres_world(postgres.address, agent).open("owns the tables"),
        await psycopg.AsyncConnection.connect(postgres.address, autocommit=True) as db,
    ):
        await db.execute(f"CREATE ROLE {user} LOGIN")
        try:
            with pytest.raises(LedgerUnavailable, match=r"permission denied for .*; grant the user of MAYPOLE_STORE"):
                async with world.open("one"):
                    pass
            await db.execute(f"GRANT CREATE ON SCHEMA public TO {user}; GRANT {rights} TO {user}")
            async with world.open("one") as ledger:
                await db.execute(f"REVOKE {rights} FROM {user}")
                with pytest.raises(LedgerUnavailable, match="permission denied for table maypole_"):
                    await ask(ledger, "s", Finish(UNWRITTEN))
                await db.execute(f"GRANT {rights} TO {user}")
                assert (await ask(ledger, "s", Finish(UNWRITTEN))).verdict is Verdict.RECORDED
        finally:
            await db.execute(f"DROP OWNED BY {user}; DROP ROLE {user}")


async def test_an_instance_without_a_session_is_presumed_dead_after_the_grace_and_may_act_until_its_lease_has_passed(
    postgres: Postgres,
) -> None:
    clock, agent = Clock(), unique_agent()
    world = postgres_world(postgres.address, agent)
    async with open_postgres_ledger(postgres.address, agent, "one", clock) as one:
        await ask(one, "acts", world.begin())
        await ask(one, "only makes events", world.begin(acts=False))
    async with open_postgres_ledger(postgres.address, agent, "two", clock, grace_ms=3_600_000) as two:
        assert (await ask(two, "only makes events", world.begin(acts=False))).verdict is Verdict.WAIT
    async with open_postgres_ledger(postgres.address, agent, "three", clock, grace_ms=0) as three:
        assert (await ask(three, "only makes events", world.begin(acts=False))).verdict is Verdict.RUN
        waiting = await ask(three, "acts", world.begin())
        assert (waiting.verdict, waiting.wait_until_ms) == (Verdict.WAIT, clock.now_ms + LEASE_MS + SKEW_MS)
        clock.now_ms += LEASE_MS + SKEW_MS
        assert (await ask(three, "acts", replace(world.begin(), now_ms=clock.now_ms))).verdict is Verdict.RUN


async def test_an_instance_that_stands_still_is_not_dead_however_long_nobody_hears_of_it(postgres: Postgres) -> None:
    clock, agent = Clock(), unique_agent()
    world = postgres_world(postgres.address, agent)
    async with another_process() as process:
        async with open_postgres_ledger(postgres.address, agent, "one", clock, process=process) as one:
            await ask(one, "s", world.begin())
            os.kill(process.pid, signal.SIGSTOP)
        async with world.open("two") as two:
            assert (await ask(two, "s", world.begin())).verdict is Verdict.WAIT


async def test_agents_share_a_database_and_not_their_steps(postgres: Postgres) -> None:
    async with postgres_world(postgres.address, unique_agent()).open("one") as one:
        await ask(one, "s", Finish(UNWRITTEN))
    async with postgres_world(postgres.address, unique_agent()).open("one") as other:
        assert (await ask(other, "s", Finish(UNWRITTEN))).verdict is Verdict.RECORDED


async def test_tables_of_a_later_version_are_refused_and_say_why(postgres: Postgres) -> None:
    world = postgres_world(postgres.address, unique_agent())
    async with world.open("one"):
        pass
    async with await psycopg.AsyncConnection.connect(postgres.address, autocommit=True) as db:
        await db.execute("UPDATE maypole_ledger_version SET version = version + 1")
        try:
            with pytest.raises(LedgerCorrupt, match="written by a later Maypole"):
                async with world.open("two"):
                    pass
        finally:
            await db.execute("UPDATE maypole_ledger_version SET version = %s", (len(postgres_schema.MIGRATIONS),))


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[str]:
    """The address of a database of its own, without any table."""
    name = unique_agent("database").replace("-", "_")
    async with await psycopg.AsyncConnection.connect(postgres.address, autocommit=True) as db:
        await db.execute(f"CREATE DATABASE {name}")
        try:
            yield postgres.address.replace("@/postgres?", f"@/{name}?")
        finally:
            await db.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def version_of(address: str) -> tuple[int, ...]:
    async with await psycopg.AsyncConnection.connect(address) as db:
        return tuple(number for (number,) in await (await db.execute("SELECT version FROM maypole_ledger_version")).fetchall())


def of_version(number: int, *more: tuple[LiteralString, ...]) -> Tables:
    return replace(postgres_schema.LEDGER, migrations=(*postgres_schema.MIGRATIONS[:number], *more))


async def migrated(address: str, tables: Tables) -> None:
    session = PostgresSession(address, "an-agent", None, tables)

    async def nothing(db: psycopg.AsyncConnection[Any]) -> None: ...

    try:
        await session.call(nothing)
    finally:
        await session.close()


async def test_rows_and_joins_of_the_first_version_are_there_in_this_one(database: str) -> None:
    await migrated(database, of_version(1))
    place = "'a flow', 'research.requested', 0"
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as db:
        steps = "INSERT INTO maypole_steps VALUES ('an-agent', %s, %s, 3, '', 0, 0, true, %s"
        await db.execute(f"{steps}, {place}, 7, 'outcome', 'input')", (step(1), "STARTED", "UNKNOWN"))
        await db.execute(f"{steps}, {place}, 7, 'outcome', 'input')", (step(2), "FAILED", "APPLIED"))
        await db.execute("INSERT INTO maypole_memos VALUES ('an-agent', %s, 'charge', 'paid', 7)", (step(1),))
        await db.execute(f"INSERT INTO maypole_joins VALUES ('an-agent', 'a join', {place}, 0, 7)")
        await db.execute(f"INSERT INTO maypole_parts VALUES ('an-agent', 'a join', 'score.ready', 'e1', {place}, 'body')")
    async with postgres_world(database, "an-agent").open("one") as ledger:
        rows = await ledger.rows([step(1), step(2)])
        assert [rows[step(number)].step.state for number in (1, 2)] == [State.STARTED, State.FAILED]
        assert {(row.step.generation, row.step.attempt, row.outcome, row.undo) for row in rows.values()} == {(1, 3, b"outcome", b"input")}
        again = await ask(ledger, 2, Retry(2), b"place")
        assert again.row is not None and (again.row.step.generation, again.row.undo) == (2, b"input")
        assert await ledger.memo(step(1), "charge") == b"paid"
        [last] = await ledger.join([Part("a join", PLACE, "income.verified", EventId("e2"), b"", 2)])
        assert last.completed_by == "e2" and last.parts["score.ready"].body == b"body"
    assert await version_of(database) == (len(postgres_schema.MIGRATIONS),)


async def test_a_migration_that_fails_changes_nothing(database: str) -> None:
    world = postgres_world(database, "an-agent")
    async with world.open("one") as ledger:
        await ask(ledger, "s", Finish(UNWRITTEN), b"kept")
    more = ("ALTER TABLE maypole_steps ADD COLUMN note text", "ALTER TABLE elsewhere ADD COLUMN note text")
    with pytest.raises(LedgerCorrupt):
        await migrated(database, of_version(len(postgres_schema.MIGRATIONS), more))
    assert await version_of(database) == (len(postgres_schema.MIGRATIONS),)
    async with await psycopg.AsyncConnection.connect(database) as db:
        with pytest.raises(psycopg.errors.UndefinedColumn):
            await db.execute("SELECT note FROM maypole_steps")
    async with world.open("two") as ledger:
        assert (await ledger.rows([step("s")]))[step("s")].outcome == b"kept"


@pytest.mark.parametrize("version", [0, 1])
async def test_instances_that_migrate_at_the_same_time_do_it_once(database: str, version: int) -> None:
    if version:
        await migrated(database, of_version(version))
    await asyncio.gather(*(migrated(database, postgres_schema.LEDGER) for _ in range(6)))
    assert await version_of(database) == (len(postgres_schema.MIGRATIONS),)


async def test_tables_that_were_dropped_are_named(postgres: Postgres) -> None:
    async with (
        postgres_world(postgres.address, unique_agent()).open("one") as ledger,
        await psycopg.AsyncConnection.connect(postgres.address, autocommit=True) as db,
    ):
        await db.execute("ALTER TABLE maypole_memos RENAME TO elsewhere")
        try:
            with pytest.raises(LedgerCorrupt, match=r"expected its tables, found.*maypole_memos"):
                await ledger.memo(step("s"), "a memo")
        finally:
            await db.execute("ALTER TABLE elsewhere RENAME TO maypole_memos")


async def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(LedgerUnavailable, match="an-agent in PostgreSQL at /nowhere"):
        async with open_postgres_ledger("postgresql://u@/d?host=/nowhere", "an-agent", "one", Clock()):
            pass
