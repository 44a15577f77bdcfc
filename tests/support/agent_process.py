"""An agent as a process of its own that can be told to die at a point of its delivery, or to be hard to stop.

    python -m tests.support.agent_process BOOTSTRAP HOME NAME [--agent AGENT] [--store STORE] [--die-at POINT] [--drain-seconds N]

Prints `ready` once it is announced. POINT is where it kills itself with SIGKILL, before the effect named.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from maypole.bus import Agent, Context, Event, Retry, all_of
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.ledger.port import Answer, Ask, Ledger
from maypole.bus.ledger.transitions import Finish
from maypole.bus.ports import Assignment, Receipt, Record, Sink, Source, TopicPartition
from maypole.bus.runner import DRAIN_SECONDS_DEFAULT, OpenLedger, stopping_on
from maypole.bus.stores.opening import open_ledger
from maypole.schemas.topics import JOURNAL
from maypole.services.cli.log_lines import log_to_stderr
from maypole.settings import Settings

POINTS = ("row", "journal", "outputs", "commit")
UNDOING_POINTS = ("undo", "undone", "answer", "command commit")
RETRY_SECONDS = 6.0
CALLS = "calls"
"""In the home of an agent that tocks: a line with the number of each tick that its handler was called with."""


class Counted(Event, type="crash.counted"):
    up_to: int


class Ticked(Event, type="crash.ticked"):
    number: int


class Tocked(Event, type="crash.tocked"):
    number: int


class Matched(Event, type="crash.matched"):
    ticked: int
    tocked: int


def counting(name: str) -> Agent:
    agent = Agent(name)

    @agent.on(Counted)
    async def count(counted: Counted) -> list[Ticked]:
        return [Ticked(number=number) for number in range(counted.up_to)]

    return agent


def tocking(name: str, calls: list[int] | None = None) -> Agent:
    """Its steps are recorded. `calls` gets the number of each tick that its handler was called with."""
    agent = Agent(name)

    @agent.on(Ticked)
    async def tock(ticked: Ticked, context: Context) -> Tocked:
        if calls is not None:
            calls.append(ticked.number)
        with (context.home / CALLS).open("a") as noted:
            noted.write(f"{ticked.number}\n")
        return Tocked(number=ticked.number)

    return agent


def purely_tocking(name: str, calls: list[int] | None = None) -> Agent:
    """Its steps are repeated, and give the same again."""
    agent = Agent(name)

    @agent.on(Ticked, pure=True)
    async def tock(ticked: Ticked, context: Context) -> Tocked:
        if calls is not None:
            calls.append(ticked.number)
        with (context.home / CALLS).open("a") as noted:
            noted.write(f"{ticked.number}\n")
        return Tocked(number=ticked.number)

    return agent


def holding(name: str) -> Agent:
    """Says `handling` and goes on when it is given a line."""
    agent = Agent(name)

    @agent.on(Ticked)
    async def hold(ticked: Ticked) -> Tocked:
        print("handling", flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.readline)
        return Tocked(number=ticked.number)

    return agent


def telling(name: str) -> Agent:
    """Says `handling` and the number of each tick that its handler is called with."""
    agent = Agent(name)

    @agent.on(Ticked)
    async def tell(ticked: Ticked) -> Tocked:
        print(f"handling {ticked.number}", flush=True)  # noqa: T201
        return Tocked(number=ticked.number)

    return agent


def matching(name: str) -> Agent:
    """Joins each tick with its tock."""
    agent = Agent(name)

    @agent.on(all_of(Ticked, Tocked))
    async def match(ticked: Ticked, tocked: Tocked) -> Matched:
        return Matched(ticked=ticked.number, tocked=tocked.number)

    return agent


def stuck(name: str) -> Agent:
    """Says `handling` and never returns."""
    agent = Agent(name)

    @agent.on(Ticked)
    def stick(ticked: Ticked) -> None:
        print("handling", flush=True)  # noqa: T201
        threading.Event().wait()

    return agent


def leaving(name: str) -> Agent:
    """Tries to end its process."""
    agent = Agent(name)

    @agent.on(Ticked, attempts_max=2)
    async def leave(ticked: Ticked) -> Tocked:
        if ticked.number == 13:
            sys.exit(0)
        return Tocked(number=ticked.number)

    return agent


def retrying(name: str) -> Agent:
    """Fails once on the first tick; notes in its home which attempt at which tick it made, and when."""
    agent = Agent(name)

    @agent.on(Ticked, retry=Retry(delays=(RETRY_SECONDS,)))
    async def retry(ticked: Ticked, context: Context) -> Tocked:
        with (context.home / "attempts").open("a") as attempts:
            attempts.write(f"{ticked.number} {context.attempt} {time.time()}\n")
        if ticked.number == 0 and context.attempt == 1:
            raise ConnectionError("away")
        return Tocked(number=ticked.number)

    return agent


def undoing(name: str, die_at: str | None = None) -> Agent:
    """Notes in its home what it does outside, and takes back: one line each, with the key that the outside would get."""
    agent = Agent(name)

    def note(what: str, context: Context) -> None:
        with (context.home / "effects").open("a") as effects:
            effects.write(f"{what} {context.idempotency_key}\n")

    @agent.on(Ticked)
    async def tock(ticked: Ticked, context: Context) -> Tocked:
        note("done", context)
        return Tocked(number=ticked.number)

    @tock.undo
    async def untock(ticked: Ticked, context: Context) -> None:
        note("undoing", context)
        if die_at == "undo":
            _die()
        note("undone", context)

    @tock.verify
    async def is_gone(ticked: Ticked, context: Context) -> bool:
        if die_at == "undone":
            _die()
        return True

    return agent


AGENTS: dict[str, Callable[[str], Agent]] = {
    agent.__name__: agent for agent in (tocking, purely_tocking, holding, telling, matching, stuck, leaving, retrying, undoing)
}


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _DyingSink:
    def __init__(self, sink: Sink, point: str) -> None:
        self._sink = sink
        self._point = point

    async def publish(self, records: Sequence[Record]) -> Sequence[Receipt]:
        topics = {record.topic for record in records}
        if (
            (self._point == "journal" and JOURNAL in topics)
            or (self._point == "outputs" and "crash.tocked" in topics)
            or (self._point == "answer" and any(("ce_type", b"maypole.step.compensated") in record.headers for record in records))
            or (self._point == "retry" and any(".retry." in topic for topic in topics))
        ):
            _die()
        return await self._sink.publish(records)


class _DyingSource:
    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        _die()


class _DyingTransport:
    """Only what the runner of an agent uses differs."""

    def __init__(self, transport: Any, point: str) -> None:
        self._transport = transport
        self._point = point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    @asynccontextmanager
    async def sink(self, *, bulk: bool = False) -> AsyncIterator[Sink]:
        async with self._transport.sink(bulk=bulk) as sink:
            yield _DyingSink(sink, self._point)

    @asynccontextmanager
    async def source(self, group: str, topics: Collection[str], assignment: Assignment, **options: Any) -> AsyncIterator[Any]:
        async with self._transport.source(group, topics, assignment, **options) as source:
            dies = self._point == "commit" or (self._point == "command commit" and group.endswith(".commands"))
            yield _DyingSource(source) if dies else source


class _DyingLedger:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def ask(self, asks: Sequence[Ask]) -> Sequence[Answer]:
        if any(isinstance(each.asked, Finish) for each in asks):
            _die()
        return await self._ledger.ask(asks)


def _dying_ledgers(platform: Platform) -> OpenLedger:
    @asynccontextmanager
    async def opening(agent: str, instance: str) -> AsyncIterator[Any]:
        home = platform.home / "agents" / agent
        async with open_ledger(platform.settings.store, home, agent, instance, lambda: int(platform.now() * 1000)) as ledger:
            yield _DyingLedger(ledger)

    return opening


async def _run(settings: Settings, agent: Agent, point: str | None, drain_seconds: float) -> None:
    from maypole.bus.kafka.confluent import ConfluentTransport

    assert settings.kafka is not None
    async with ConfluentTransport(settings.kafka) as real:
        transport: Any = real if point is None else _DyingTransport(real, point)
        async with open_platform(settings, transport) as platform:
            if point == "row":
                platform = replace(platform, ledgers=_dying_ledgers(platform))
            runner = platform.runner(agent, Untraced(), drain_seconds=drain_seconds)
            with stopping_on([runner], signal.SIGTERM, signal.SIGINT):
                async with asyncio.TaskGroup() as group:
                    group.create_task(runner.run())
                    await runner.ready.wait()
                    print("ready", flush=True)  # noqa: T201 - the protocol of this process


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap")
    parser.add_argument("home", type=Path)
    parser.add_argument("name")
    parser.add_argument("--agent", choices=AGENTS, default="tocking")
    parser.add_argument("--store", default="sqlite")
    parser.add_argument("--die-at", choices=(*POINTS, "retry", *UNDOING_POINTS))
    parser.add_argument("--drain-seconds", type=float, default=DRAIN_SECONDS_DEFAULT)
    chosen = parser.parse_args()
    log_to_stderr(1)
    settings = Settings(home=chosen.home, kafka=chosen.bootstrap, store=chosen.store)
    agent = undoing(chosen.name, chosen.die_at) if chosen.agent == "undoing" else AGENTS[chosen.agent](chosen.name)
    asyncio.run(_run(settings, agent, chosen.die_at, chosen.drain_seconds))


if __name__ == "__main__":
    main()
