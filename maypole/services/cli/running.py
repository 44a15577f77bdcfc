"""Agents in this process: started together, ready when all of them are announced, stopped in their own written order."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from maypole.bus import Agent
from maypole.bus.composition import Platform, open_tracing
from maypole.bus.runner import AgentRunner, run_agents
from maypole.bus.starting_offsets import StartFrom
from maypole.services.cli.interrupts import stopping_with

log = logging.getLogger("maypole.services.cli.running")


@asynccontextmanager
async def running(
    platform: Platform, agents: Sequence[Agent], *, start: StartFrom = "latest", temporary: bool = True
) -> AsyncIterator[asyncio.Task[None]]:
    """All agents are announced when the body begins; leaving it drains and stops them, then exports their spans.

    The task ends when they have stopped, with the first error of any of them.
    """
    if platform.transport.features.survives_restart:
        settle(platform.home)
    with ExitStack() as observed:
        runners = []
        for agent in agents:
            tracing = observed.enter_context(open_tracing(platform.settings, agent.name, agent.version))
            runners.append(platform.runner(agent, tracing, start=start, temporary=temporary))
        task = asyncio.create_task(run_agents(runners), name="agents")
        try:
            await _ready(runners, task)
            yield task
        finally:
            for runner in runners:
                runner.stop()
            await task


async def _ready(runners: Sequence[AgentRunner], task: asyncio.Task[None]) -> None:
    """Raises what kept an agent from starting."""
    for runner in runners:
        await first_of(runner.ready.wait(), task)


async def first_of(ready: Coroutine[Any, Any, object], task: asyncio.Task[None]) -> None:
    """Until it is ready, or the task ends without ever being so: then its error is raised."""
    waiting = asyncio.create_task(ready)
    try:
        await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if task.done():
        await task


@contextmanager
def stop_requested() -> Iterator[asyncio.Event]:
    """Set at the first SIGINT or SIGTERM, so that work in hand is finished; the second one ends the process at once."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def stop() -> None:
        asked.set()
        click.echo("stopping: what was taken is finished first (once more to stop at once)", err=True)

    def soon() -> None:
        loop.call_soon_threadsafe(stop)

    with stopping_with(soon):
        yield asked


@contextmanager
def kept_meanwhile(cluster_home: Path, agents: Sequence[Agent]) -> Iterator[None]:
    """State beside a broker that forgets everything is nothing without it: afterwards that of these agents and of the coordinator is gone.

    What other processes keep beside the same broker is left to them, and so is the state of other clusters.
    """
    try:
        yield
    finally:
        for folder in (*(cluster_home / "agents" / agent.name for agent in agents), cluster_home / "coordinator"):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (cluster_home / "agents", cluster_home, cluster_home.parent):
            try:
                folder.rmdir()
            except OSError:
                break  # not empty: somebody else's


def settle(cluster_home: Path) -> None:
    """Where agents find nothing of what they kept beside another cluster, it is said once; nothing of it is touched."""
    if cluster_home.exists():
        return
    others = sorted(each.name for each in cluster_home.parent.glob("*") if each.is_dir())
    if others:
        log.warning("state.other_cluster", extra={"expected": str(cluster_home), "found": f"only that of {', '.join(others)}, which stays"})


async def until_stopped(asked: asyncio.Event, *working: asyncio.Task[None], gone: Coroutine[Any, Any, NoReturn] | None = None) -> None:
    """Until somebody asks to stop. What ends any of those `working` by itself is raised, and so is what `gone` raises."""
    waiting: list[asyncio.Task[Any]] = [asyncio.create_task(asked.wait())]
    if gone is not None:
        waiting.append(asyncio.create_task(gone))
    try:
        await asyncio.wait({*waiting, *working}, return_when=asyncio.FIRST_COMPLETED)
        for each in (*working, *waiting):
            if each.done():
                await each
    finally:
        for each in waiting:
            each.cancel()


def introduce(agent: Agent) -> str:
    """`research  research.requested -> research.completed, research.inconclusive`."""
    parts = [
        f"{' + '.join(subscription.event_types)} -> {', '.join(event.event_type for event in subscription.emits) or 'nothing'}"
        for subscription in agent.subscriptions
    ]
    return f"{click.style(agent.name, bold=True)}  {'; '.join(parts)}"
