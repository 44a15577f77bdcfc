"""Named points of a delivery at which a process kills itself, as the operating system would: no `finally` runs."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from maypole.bus.ports import Assignment, Delivery, Receipt, Record, Sink, Source, TopicPartition
from maypole.schemas.topics import CATALOG, JOURNAL

T = TypeVar("T")

POINTS: Final = ("fetched", "handling", "handled", "journaling", "journaled", "publishing", "published", "committed")
"""In the order of a delivery. `journaling` and `publishing`: the records are with the client, and not acknowledged yet."""
EFFECTED: Final = "effected"
"""Between the call to the outside and the handler's return; only where there is such a call."""

_IN_FLIGHT_SECONDS_MAX: Final = 0.005
_STALL_SECONDS_MAX: Final = 0.1
"""A point may last before the process dies at it: whatever else is wrongly under way meanwhile gets its chance."""


class Failpoint:
    """Kills this process when it passes `point` for the `after`th time; with no point, never."""

    def __init__(self, point: str | None, after: int) -> None:
        self._point = point
        self._left = after

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--die-at", choices=(*POINTS, EFFECTED), default=None)
        parser.add_argument("--after", type=int, default=1)

    @classmethod
    def chosen(cls, options: argparse.Namespace) -> Failpoint:
        return cls(options.die_at, options.after)

    def passing(self, point: str) -> None:
        if self._due(point):
            die()

    async def stalling(self, point: str) -> None:
        """As `passing`, between two steps of which the second never comes, while everything else in the process goes on."""
        if self._due(point):
            await asyncio.sleep(random.uniform(0, _STALL_SECONDS_MAX))
            die()

    async def during(self, point: str, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work`; when the point is due, begin it and die before it can have ended."""
        if not self._due(point):
            return await work()
        begun = asyncio.ensure_future(work())
        await asyncio.sleep(random.uniform(0, _IN_FLIGHT_SECONDS_MAX))
        die()
        return await begun  # never reached: a killed process does nothing more

    def _due(self, point: str) -> bool:
        if point != self._point:
            return False
        self._left -= 1
        return self._left <= 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def end_with_the_crew() -> None:
    """Die when whoever started this process is gone: its standard input ends then. Nobody else would end what it left behind."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock the interpreter wants when it ends
            pass
        die()

    threading.Thread(target=wait, daemon=True, name="crew").start()


class FailingTransport:
    """A transport whose sources and sinks pass the points. Everything else is the real one's."""

    def __init__(self, transport: Any, failpoint: Failpoint) -> None:
        self._transport = transport
        self._failpoint = failpoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    @asynccontextmanager
    async def sink(self, *, bulk: bool = False) -> AsyncIterator[Sink]:
        async with self._transport.sink(bulk=bulk) as sink:
            yield _FailingSink(sink, self._failpoint)

    @asynccontextmanager
    async def source(self, group: str, topics: Collection[str], assignment: Assignment, **options: Any) -> AsyncIterator[Any]:
        async with self._transport.source(group, topics, assignment, **options) as source:
            yield _FailingSource(source, self._failpoint)


class _FailingSink:
    def __init__(self, sink: Sink, failpoint: Failpoint) -> None:
        self._sink = sink
        self._failpoint = failpoint

    async def publish(self, records: Sequence[Record]) -> Sequence[Receipt]:
        topics = {record.topic for record in records}
        if CATALOG in topics or not topics:
            return await self._sink.publish(records)
        before, during = ("handled", "journaling") if JOURNAL in topics else ("journaled", "publishing")
        await self._failpoint.stalling(before)
        return await self._failpoint.during(during, lambda: self._sink.publish(records))


class _FailingSource:
    def __init__(self, source: Source, failpoint: Failpoint) -> None:
        self._source = source
        self._failpoint = failpoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def fetch(self) -> Sequence[Delivery]:
        batch = await self._source.fetch()
        await self._failpoint.stalling("fetched")
        return batch

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        await self._failpoint.stalling("published")
        await self._source.commit(positions)
        self._failpoint.passing("committed")
