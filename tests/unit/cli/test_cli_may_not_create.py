"""Where the broker does not let us create topics: whoever may is told what to type."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from maypole.bus import composition
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.cluster import MemoryCluster
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.ports import TopicsForbidden, TopicSpec
from maypole.settings import Settings
from tests.unit.cli.conftest import Maypole

AGENT = """
from __future__ import annotations

from maypole.bus import Agent, Event


class Ordered(Event, type="forbidden.ordered"):
    item: str


packing = Agent("packing")


@packing.on(Ordered)
async def pack(ordered: Ordered) -> None: ...
"""


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the topics that a broker refused to create: all but those of the platform, which are there."""
    refused: list[str] = []
    create = MemoryCluster.create

    async def refuse(cluster: MemoryCluster, topics: Collection[TopicSpec]) -> None:
        forbidden = [topic.name for topic in topics if not topic.name.startswith("maypole.")]
        await create(cluster, [topic for topic in topics if topic.name not in forbidden])
        if forbidden:
            refused.extend(forbidden)
            raise TopicsForbidden(forbidden)

    @asynccontextmanager
    async def opening(settings: Settings) -> AsyncIterator[MemoryTransport]:
        async with MemoryTransport(MemoryBroker(time.time)) as transport:
            yield transport

    monkeypatch.setattr(MemoryCluster, "create", refuse)
    monkeypatch.setattr(composition, "open_transport", opening)
    return refused


def test_an_agent_that_may_not_create_its_topics_ends_with_the_command_for_the_one_who_may(
    maypole: Maypole, refused: list[str], tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(AGENT)
    ran = maypole("--kafka", "127.0.0.1:1", "run", "shop.py:packing")
    assert ran.code == 1 and "forbidden.ordered" in refused
    assert "did not let us create" in ran.err and "forbidden.ordered" in ran.err
    assert "topics apply shop.py:packing" in ran.err
