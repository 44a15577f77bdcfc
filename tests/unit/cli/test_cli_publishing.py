"""What is refused when it is published, and the way out that is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from maypole.bus import Event
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import virtual_time
from maypole.schemas.avro import schema_of
from maypole.schemas.topics import Topic
from maypole.services.cli.event_types import EventType
from maypole.services.cli.problems import Problem
from maypole.services.cli.publishing import publish
from maypole.settings import Settings


class Carried(Event, type="large.carried"):
    text: str


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    async with AsyncExitStack() as stack:
        clock = await stack.enter_async_context(virtual_time())
        transport = await stack.enter_async_context(MemoryTransport(MemoryBroker(clock.now)))
        yield await stack.enter_async_context(open_platform(Settings(home=tmp_path), transport, clock.now))


async def refused(platform: Platform, letters: int) -> Problem:
    event_type = EventType(Carried.event_type, schema_of(Carried), Carried, ())
    with pytest.raises(Problem) as problem:
        await publish(platform.bus("tests", Untraced()), platform, event_type, {"text": "x" * letters})
    return problem.value


async def test_an_event_that_is_too_large_is_told_its_size_and_to_send_a_reference(platform: Platform) -> None:
    problem = await refused(platform, 1_000_000)
    assert str(problem) == "large.carried: expected at most 900000 bytes, found 1000008"
    assert "publish its address" in str(problem.hint) and "--data" not in str(problem.hint)


async def test_an_event_that_its_topic_does_not_take_is_told_the_topics_limit(platform: Platform) -> None:
    await platform.ensure([Topic("large.carried", record_bytes_max=20_000)])
    problem = await refused(platform, 30_000)
    assert "refused a record for large.carried" in str(problem)
    assert "large.carried takes records of 20000 bytes at most (its max.message.bytes); raise that" in str(problem.hint)
