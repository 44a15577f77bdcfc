"""One signal ends an agent's process within its drain and a few seconds, whatever is in its way; a second one at once."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.local.kafka import KafkaCluster
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.schemas.topics import event_topic
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.agent_process import Ticked, Tocked
from tests.support.names import unique_agent
from tests.support.processes import agent_process
from tests.support.world import ended

DRAIN_SECONDS = 1.0
LEAVING_SECONDS = 20.0  # three for each of its farewells; the rest is for a machine that is busy. Without bounds it would take for ever


@pytest.fixture
async def platform(kafka: str, tmp_path: Path) -> AsyncIterator[Platform]:
    async with connected(kafka, tmp_path) as platform:
        yield platform


@asynccontextmanager
async def connected(kafka: str, home: Path) -> AsyncIterator[Platform]:
    async with open_platform(Settings(home=home, kafka=kafka)) as platform:
        for declaration in platform.catalog.view.active():
            await platform.catalog.retire(declaration["name"])
        await platform.ensure([event_topic(event.event_type) for event in (Ticked, Tocked)])
        yield platform


@asynccontextmanager
async def process(platform: Platform, agent: str) -> AsyncIterator[tuple[str, Process]]:
    """The agent as a process of its own, announced."""
    settings, name = platform.settings, unique_agent(agent)
    assert settings.kafka is not None
    command = ("-m", "tests.support.agent_process", settings.kafka, str(settings.home), name, "--agent", agent)
    started = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--drain-seconds", str(DRAIN_SECONDS), stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        await said(started, "ready")
        yield name, started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def said(process: Process, word: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == word.encode() + b"\n"


async def last_words(process: Process, seconds: float) -> str:
    """What it said on standard error until it ended, in so much time."""
    async with asyncio.timeout(seconds):
        _, words = await process.communicate()
    return words.decode()


async def handling(platform: Platform, started: Process) -> None:
    await platform.bus("tests", Untraced()).publish(Ticked(number=1))
    await said(started, "handling")


async def test_a_thread_that_never_returns_is_left_behind(platform: Platform) -> None:
    async with process(platform, "stuck") as (name, started):
        await handling(platform, started)
        started.send_signal(signal.SIGTERM)
        words = await last_words(started, DRAIN_SECONDS + LEAVING_SECONDS)
        assert started.returncode == 0
    assert f"handler.thread_abandoned agent={name} handler=__main__:stuck.<locals>.stick" in words
    assert f"agent.threads_abandoned agent={name} threads=1" in words


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_second_signal_ends_it_at_once_without_a_traceback(platform: Platform, number: signal.Signals) -> None:
    async with process(platform, "stuck") as (_, started):
        await handling(platform, started)
        started.send_signal(signal.SIGTERM)
        assert started.stderr is not None
        while b"stopping" not in await started.stderr.readline():
            pass
        started.send_signal(number)
        words = await last_words(started, DRAIN_SECONDS)
        assert started.returncode == 128 + number
    assert "Traceback" not in words


async def test_what_was_in_hand_when_the_signal_came_is_finished_and_nothing_of_it_is_done_again(platform: Platform) -> None:
    name, bus = unique_agent("holding"), platform.bus("tests", Untraced())
    async with agent_process(platform, name, "holding") as stopped:
        during = await bus.publish(Ticked(number=1))
        await stopped.until(lambda: "handling" in stopped.said)
        stopped.process.send_signal(signal.SIGTERM)
        await stopped.until_logged("agent.stopping")
        left = await bus.publish(Ticked(number=2))
        assert stopped.process.stdin is not None
        stopped.process.stdin.write(b"go on\n")
        assert await stopped.end() == 0
        assert stopped.said.count("handling") == 1, "nothing more was begun"
        assert (await ended(platform, during.flow_id)).state is State.COMMITTED
    async with agent_process(platform, name, "telling") as successor:
        assert (await ended(platform, left.flow_id)).state is State.COMMITTED
        assert successor.said == ["ready", "handling 2"] or successor.said == ["handling 2", "ready"]


@pytest.mark.slow
async def test_an_agent_whose_broker_is_gone_ends_with_what_it_could_not_publish(mortal: KafkaCluster, tmp_path: Path) -> None:
    async with connected(mortal.bootstrap, tmp_path) as platform, process(platform, "holding") as (name, started):
        await handling(platform, started)
        mortal.kill_node(1)
        assert started.stdin is not None
        started.stdin.write(b"go on\n")
        started.send_signal(signal.SIGTERM)
        words = await last_words(started, DRAIN_SECONDS + LEAVING_SECONDS)
        assert started.returncode == 0
        assert f"drain.deadline_passed agent={name} records=1" in words and "Traceback" not in words
        mortal.heal()


async def test_a_handler_that_ends_the_process_ends_its_own_step(platform: Platform) -> None:
    async with process(platform, "leaving") as (name, started):
        bus = platform.bus("tests", Untraced())
        unlucky, lucky = await bus.publish(Ticked(number=13)), await bus.publish(Ticked(number=14))
        state = await ended(platform, unlucky.flow_id)
        (failed,) = [record for record in state.failed.values() if record.agent == name]
        assert (failed.reason, failed.detail) == ("attempts_exhausted", "SystemExit: 0")
        assert (await ended(platform, lucky.flow_id)).state is State.COMMITTED
        assert started.returncode is None
