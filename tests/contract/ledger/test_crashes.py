"""Killed before any statement, a batch has happened or has not, and what was acknowledged has happened."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from deploy.local.postgres import Postgres
from maypole.bus.ledger.port import Ask, Join, JoinState, Ledger
from maypole.bus.ledger.step import State
from maypole.bus.ledger.transitions import Verdict
from maypole.schemas.identifiers import StepId
from tests.contract.ledger.stores import PLACE, World, postgres_world, sqlite_world
from tests.contract.ledger.victim import ALONE, EXPIRED, FIRST, JOINED, LAST, STEPS, UNBEGUN, run
from tests.support.names import unique_agent

AT_THE_SAME_TIME = 4
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.contract.ledger.victim"])
"""Victims come from a process that has imported what they need, and nothing of ours runs in it."""


@pytest.mark.parametrize("statement", [5, 9, 16])
async def test_sqlite_killed_while_its_tables_are_made(tmp_path: Path, statement: int) -> None:
    assert await kill(str(tmp_path / "ledger.sqlite3"), statement) == []
    await check(sqlite_world(tmp_path), [])


async def test_sqlite_killed_before_any_statement(tmp_path: Path) -> None:
    async def killed(number: int) -> bool:
        folder = tmp_path / str(number)
        folder.mkdir()
        async with sqlite_world(folder).open("zero"):
            pass  # its tables are there
        said = await kill(str(folder / "ledger.sqlite3"), number)
        await check(sqlite_world(folder), said)
        return "survived" not in said

    assert await kill_everywhere(killed) > 15


async def test_postgres_killed_before_any_statement(postgres: Postgres) -> None:
    async def killed(number: int) -> bool:
        agent = unique_agent()
        said = await kill(f"{postgres.address}#{agent}", number)
        await check(postgres_world(postgres.address, agent), said)
        return "survived" not in said

    assert await kill_everywhere(killed) > 8


async def kill_everywhere(killed: Callable[[int], Awaitable[bool]]) -> int:
    """How many statements there were to be killed before."""
    number = 1
    while True:
        died = await asyncio.gather(*(killed(each) for each in range(number, number + AT_THE_SAME_TIME)))
        number += AT_THE_SAME_TIME
        if not all(died):
            return number - AT_THE_SAME_TIME + died.index(False) - 1


async def kill(store: str, statement: int) -> Sequence[str]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "said"
        path.touch()
        victim = PROCESSES.Process(target=run, args=(store, statement, path))
        victim.start()
        await ended(victim.sentinel)
        victim.join()
        said = path.read_text().split()
    assert victim.exitcode == (0 if "survived" in said else -9)
    return said


async def ended(sentinel: int) -> None:
    """Not by joining in a thread: starting another process asks how this one ended, and only one of them is told."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sentinel, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(sentinel)


async def check(world: World, said: Sequence[str]) -> None:
    async with world.open("two") as ledger:
        finished = await together(ledger, STEPS)
        recorded = await together(ledger, UNBEGUN)
        joins = await ledger.joins([JOINED, EXPIRED])
        paid, younger = await ledger.memo(STEPS[0], "charge"), await ledger.memo(STEPS[1], "charge")
        forgotten = younger is not None and not (finished or recorded or joins or paid)
        assert forgotten or "forgotten" not in said
        if not forgotten:
            assert finished or "finished" not in said
            assert recorded or "recorded" not in said
            assert paid == b"first" or (paid is None and "memoised" not in said)
            check_joins(joins, said)
        begun = await ledger.ask([Ask(each, world.begin(), PLACE) for each in STEPS])
        if finished:
            assert {(answer.verdict, answer.row and answer.row.outcome) for answer in begun} == {(Verdict.REPUBLISH, b"outcome")}
        else:
            assert {answer.verdict for answer in begun} == {Verdict.RUN}, "the owner is dead: nobody waits for its lease"
            attempts = {answer.row.step.attempt for answer in begun if answer.row}
            assert attempts == {2} or (attempts == {1} and (forgotten or "begun" not in said))
        assert await ledger.memoise(STEPS[0], "charge", b"second") == (paid or b"second")
        *_, completed = await ledger.join([FIRST, LAST])
        assert completed.completed_by == LAST.event_id, "whatever of it is there, the rest completes it"


def check_joins(joins: Mapping[str, Join], said: Sequence[str]) -> None:
    assert set(joins) == {JOINED, EXPIRED} or (not joins and "joined" not in said), "what came in one call"
    if joins:
        joined, expired = joins[JOINED], joins[EXPIRED]
        fired = (joined.state, set(joined.parts), joined.completed_by) == (JoinState.FIRED, {FIRST.type, LAST.type}, LAST.event_id)
        waits = (joined.state, set(joined.parts), joined.completed_by) == (JoinState.OPEN, {FIRST.type}, None)
        assert fired or (waits and "fired" not in said)
        assert set(expired.parts) == {ALONE.type}
        assert expired.state is JoinState.EXPIRED or (expired.state is JoinState.OPEN and "expired" not in said)


async def together(ledger: Ledger, steps: Sequence[StepId]) -> bool:
    """Whether all of them are done; some of them would be half a batch."""
    done = [step_id for step_id, row in (await ledger.rows(steps)).items() if row.step.state is State.DONE]
    assert len(done) in (0, len(steps))
    return bool(done)
