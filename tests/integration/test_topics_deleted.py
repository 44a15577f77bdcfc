"""Topics that somebody deletes while agents work: what was made again under the same name is read whole, and nothing is lost in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from maypole.bus import Agent, Event
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import PublishRefused
from maypole.schemas.topics import event_topic
from maypole.services.cli.problems import leaf
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.names import unique_agent, unique_topic
from tests.support.world import ended, eventually, running

BEFORE, AFTER = 12, 36
"""So many more that every partition holds positions that were reached in the topic before."""


@asynccontextmanager
async def connected(kafka: str, home: Path, config: dict[str, str] | None = None) -> AsyncIterator[Platform]:
    async with open_platform(Settings(home=home, kafka=kafka, kafka_config=config or {})) as platform:
        for declaration in platform.catalog.view.active():
            await platform.catalog.retire(declaration["name"])
        yield platform


async def delete(kafka: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    await asyncio.to_thread(admin.delete_topics([topic])[topic].result, 20)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_a_topic_that_is_deleted_and_made_again_is_read_from_its_oldest_record(
    kafka: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    agent, calls = Agent(unique_agent("asked")), list[int]()

    class Asked(Event, type=unique_topic("deleted.asked")):
        number: int

    @agent.on(Asked)
    async def answer(asked: Asked) -> None:
        calls.append(asked.number)

    async def called() -> set[int]:
        return set(calls)

    async def publish(home: str, numbers: range) -> None:
        # By a client of its own each time: one that knew the topic before takes a while to see the other.
        async with open_platform(Settings(home=tmp_path / home, kafka=kafka)) as publishing:
            for number in numbers:
                await publishing.bus("tests", Untraced()).publish(Asked(number=number))

    async with connected(kafka, tmp_path / "agent", {"group.protocol": protocol}) as platform, running(platform, agent):
        await publish("before", range(BEFORE))
        await eventually(called, lambda found: found == set(range(BEFORE)))
        await delete(kafka, Asked.event_type)
        await platform.ensure([event_topic(Asked.event_type)])
        await publish("after", range(BEFORE, BEFORE + AFTER))
        await eventually(called, lambda found: found == set(range(BEFORE + AFTER)), 60)
    assert len(calls) == BEFORE + AFTER, "each once, also where a record was met under the old position first"
    assert f"bus.topic_made_anew topic={Asked.event_type}" in caplog.text


async def test_an_agent_whose_output_topic_is_deleted_ends_and_is_finished_by_its_successor_under_the_same_ids(
    kafka: str, tmp_path: Path
) -> None:
    name, calls = unique_agent("asked"), list[int]()

    class Asked(Event, type=unique_topic("deleted.asked")):
        number: int

    class Answered(Event, type=unique_topic("deleted.answered")):
        number: int

    def answering() -> Agent:
        agent = Agent(name)

        @agent.on(Asked)
        async def answer(asked: Asked) -> Answered:
            calls.append(asked.number)
            return Answered(number=asked.number)

        return agent

    async with connected(kafka, tmp_path) as platform:
        bus = platform.bus("tests", Untraced())
        runner = platform.runner(answering(), Untraced())
        task = asyncio.create_task(runner.run())
        await runner.ready.wait()
        await delete(kafka, Answered.event_type)
        left = await bus.publish(Asked(number=1))
        await asyncio.wait([task], timeout=60)
        error = leaf(task.exception() or AssertionError("it goes on"))
        assert isinstance(error, PublishRefused) and error.topic == Answered.event_type
    async with connected(kafka, tmp_path) as platform, running(platform, answering()):
        assert (await ended(platform, left.flow_id)).state is State.COMMITTED
    assert calls == [1], "what it had recorded is published by its successor"
