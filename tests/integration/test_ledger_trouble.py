"""What a ledger suffers while its agent runs: what may pass is waited for, what will not stops the agent; nothing is lost either way."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from deploy.local.postgres import Postgres
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.schemas.identifiers import FlowId
from maypole.schemas.topics import event_topic
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.agent_process import Ticked, Tocked
from tests.support.names import unique_agent
from tests.support.processes import AgentProcess, agent_process, starting_process
from tests.support.world import ended, ids, read_topic

TICKS = 20
Trouble = Callable[[AgentProcess, Path], AbstractAsyncContextManager[None]]


@pytest.fixture
async def platform(kafka: str, tmp_path: Path) -> AsyncIterator[Platform]:
    async with open_platform(Settings(home=tmp_path, kafka=kafka)) as platform:
        for declaration in platform.catalog.view.active():
            await platform.catalog.retire(declaration["name"])
        await platform.ensure([event_topic(event.event_type) for event in (Ticked, Tocked)])
        yield platform


async def tick(platform: Platform, numbers: range) -> list[FlowId]:
    bus = platform.bus("tests", Untraced())
    return [(await bus.publish(Ticked(number=number))).flow_id for number in numbers]


async def tocks(platform: Platform, flows: list[FlowId]) -> dict[FlowId, list[str]]:
    records = await read_topic(platform, Tocked.event_type)
    return {flow: ids([record for record in records if record.key == flow.encode()]) for flow in flows}


def calls(agent: AgentProcess) -> list[int]:
    return sorted(int(line.removeprefix("handling ")) for line in agent.said if line.startswith("handling "))


def ledger_of(platform: Platform, name: str) -> Path:
    return platform.home / "agents" / name / "ledger.sqlite3"


@asynccontextmanager
async def full(agent: AgentProcess, path: Path) -> AsyncIterator[None]:
    """No file of this process may grow or be written; what it says goes through pipes."""
    before = resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, before)


@asynccontextmanager
async def locked(agent: AgentProcess, path: Path) -> AsyncIterator[None]:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.close()


@pytest.mark.parametrize("trouble", [full, locked], ids=lambda trouble: trouble.__name__)
async def test_a_ledger_that_cannot_be_written_is_waited_for_and_no_handler_is_called_twice(platform: Platform, trouble: Trouble) -> None:
    name = unique_agent("telling")
    async with agent_process(platform, name, "telling") as agent:
        first = await tick(platform, range(1))
        assert (await ended(platform, first[0])).state is State.COMMITTED
        async with trouble(agent, ledger_of(platform, name)):
            flows = await tick(platform, range(1, TICKS))
            assert 'then="delivery waits"' in await agent.until_logged("ledger.unavailable")
            assert not any((await tocks(platform, flows)).values()), "nothing leaves before it is recorded"
        await agent.until_logged("ledger.available_again")
        for flow in flows:
            assert (await ended(platform, flow)).state is State.COMMITTED
        assert calls(agent) == list(range(TICKS))
        assert {len(found) for found in (await tocks(platform, first + flows)).values()} == {1}


async def test_agents_go_on_when_their_database_has_restarted(platform: Platform, postgres: Postgres, tmp_path: Path) -> None:
    name, store = unique_agent("telling"), ("--store", postgres.address)
    async with (
        agent_process(platform, name, "telling", *store, home=tmp_path / "one") as one,
        agent_process(platform, name, "telling", *store, home=tmp_path / "two") as two,
    ):
        postgres.kill()
        flows = await tick(platform, range(TICKS))
        await asyncio.wait(
            [asyncio.create_task(each.until_logged("ledger.unavailable")) for each in (one, two)], return_when="FIRST_COMPLETED"
        )
        assert not any((await tocks(platform, flows)).values())
        await asyncio.to_thread(postgres.start)
        for flow in flows:
            assert (await ended(platform, flow)).state is State.COMMITTED
        assert sorted(calls(one) + calls(two)) == list(range(TICKS))
        assert {len(found) for found in (await tocks(platform, flows)).values()} == {1}
        assert one.process.returncode is two.process.returncode is None


def removed(path: Path) -> None:
    shutil.rmtree(path.parent)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("harm", [removed, emptied], ids=lambda harm: harm.__name__)
async def test_a_ledger_that_is_gone_stops_its_agent_and_a_new_one_finishes_the_work(
    platform: Platform, harm: Callable[[Path], None]
) -> None:
    name = unique_agent("telling")
    path = ledger_of(platform, name)
    async with agent_process(platform, name, "telling") as agent:
        done = await tick(platform, range(TICKS))
        for flow in done:
            assert (await ended(platform, flow)).state is State.COMMITTED
        harm(path)
        left = await tick(platform, range(TICKS, 2 * TICKS))
        assert await agent.end() == 1
        assert "LedgerCorrupt" in "\n".join(agent.logged) and str(path) in "\n".join(agent.logged)
    if harm is not removed:
        # Its log may have made it whole when it was closed. Without, nothing is there, and that is said until somebody has decided.
        for each in path.parent.glob(f"{path.name}-*"):
            each.unlink()
        harm(path)
        async with starting_process(platform, name, "telling") as refused:
            assert await refused.end() == 1
            assert "LedgerCorrupt" in "\n".join(refused.logged)
        shutil.rmtree(path.parent)
    async with agent_process(platform, name, "telling") as successor:
        for flow in left:
            assert (await ended(platform, flow)).state is State.COMMITTED
        assert set(calls(successor)) >= set(range(TICKS, 2 * TICKS)) - set(calls(agent))
    found = await tocks(platform, done + left)
    assert {len(set(each)) for each in found.values()} == {1}, "under the same ids"
