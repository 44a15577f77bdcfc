"""Dead letters of optional steps: while the flow runs its step gets another chance, by a word in the flow's journal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from maypole.bus.composition import Platform, open_platform
from maypole.bus.dead_letters import Reason, dead_letter
from maypole.bus.hook import Untraced
from maypole.bus.journal import JournalRecords
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.ports import Delivery
from maypole.schemas.envelope import lineage, rfc3339
from maypole.schemas.event import Event
from maypole.schemas.identifiers import root_traceparent
from maypole.schemas.topics import dead_letters
from maypole.services.cli.commands.dlq import _way_on
from maypole.services.cli.dead_letters import read_copies, read_letters
from maypole.services.cli.flow_histories import story_of
from maypole.services.cli.redriving import Judge, Verdict, Wish, judge_all, send_all
from maypole.settings import Settings
from tests.support.stories import Story, agent
from tests.support.world import read_topic

AGENTS = (agent("needed", "r.s"), agent("nice", "r.s", kind="events", optional=True))


@dataclass
class Office:
    platform: Platform
    story: Story

    async def tell(self, *records: Event) -> None:
        flow, written = self.story.flow.encode(), JournalRecords("/agents/test")
        common = lineage(flow_id=flow, time=rfc3339(0).encode(), state_version=1, choreography=self.story.choreography.hash.encode())
        said = [written.record(body, uuid4().hex, flow, root_traceparent(self.story.flow), None, common) for body in records]
        await self.platform.sink.publish(said)

    async def bury(self) -> None:
        told = {
            "id": self.story.root.event_id,
            "type": "r.s",
            "correlationid": self.story.flow,
            "choreography": self.story.choreography.hash,
        }
        headers = [(f"ce_{name}", value.encode()) for name, value in told.items()]
        original = Delivery("r.s", 0, 0, 0, self.story.flow.encode(), b"value", headers)
        await self.platform.sink.publish([dead_letter("nice", original, Reason.REJECTED, "nobody is in", 1, 0)])

    async def way_on(self) -> str:
        (letter,) = await read_topic(self.platform, "nice.dlq")
        return await _way_on(self.platform, letter, await read_copies(self.platform.transport, ["nice"]))

    async def redriven(self) -> list[Verdict]:
        platform, wish = self.platform, Wish()
        judge = Judge(platform, await read_copies(platform.transport, ["nice"]), wish)
        verdicts = await judge_all(judge, lambda: read_letters(platform.transport, ["nice"]), lambda _: True, wish)
        bus = platform.bus("tests", Untraced())
        return [each async for each in send_all(platform, bus, lambda: read_letters(platform.transport, ["nice"]), verdicts, "ada@home")]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with AsyncExitStack() as stack:
        clock = await stack.enter_async_context(virtual_time())
        transport = await stack.enter_async_context(MemoryTransport(MemoryBroker(clock.now)))
        platform = await stack.enter_async_context(open_platform(Settings(home=tmp_path), transport, clock.now))
        await platform.ensure([dead_letters("nice")])
        for declaration in AGENTS:
            await platform.catalog.announce(declaration, {})
        await platform.catalog.pin("r.s")
        yield Office(platform, Story("r.s", *AGENTS, flow=str(uuid4())))


async def test_its_letter_gives_it_another_chance_once_for_each_failure_and_says_who_asked(office: Office) -> None:
    story = office.story
    await office.tell(story.started(60_000), story.failed("nice"))
    await office.bury()
    shown = await office.way_on()
    (sent,) = await office.redriven()
    assert shown == f"try: maypole dlq redrive {sent.place}   (its flow goes on without it, and will wait for it again)"
    assert (sent.action, sent.why, (sent.sent_to or "").rpartition("/")[0].rpartition("/")[0]) == (
        "chance",
        "optional_step",
        "maypole.journal",
    )
    ((_, said),) = (await story_of(office.platform, story.flow)).decisions()
    assert (said.step_id, said.decision, said.by, said.generation) == (story.ids["nice"], "RETRY", "ada@home", 1)
    assert said.note == f"redriven from its dead letter, {sent.place}"
    assert await read_topic(office.platform, "nice.retry.0s") == [], "its agent is told by the coordinator, from what its row keeps"
    (again,) = await office.redriven()
    assert (again.action, again.why) == ("skipped", "redriven_before")

    await office.tell(story.failed("nice", generation=2))
    await office.bury()
    assert {(verdict.action, verdict.why) for verdict in await office.redriven()} == {
        ("chance", "optional_step"),
        ("skipped", "repetition"),
    }
    assert [said.generation for _, said in (await story_of(office.platform, story.flow)).decisions()] == [1, 2]
    await office.tell(story.completed("nice"))
    assert {(verdict.action, verdict.why) for verdict in await office.redriven()} == {("skipped", "completed")}


async def test_once_its_flow_has_gone_on_without_it_nothing_runs_again(office: Office) -> None:
    story = office.story
    await office.bury()
    assert "nothing to redrive: the journal says nothing of the step of nice" in await office.way_on()
    (untold,) = await office.redriven()
    assert (untold.action, untold.why) == ("refused", "flow_untold")
    await office.tell(story.started(60_000), story.failed("nice"), story.completed("needed"))
    (over,) = await office.redriven()
    assert (over.action, over.why) == ("refused", "decided_flow")
    assert "it is committed" in over.detail
    assert list((await story_of(office.platform, story.flow)).decisions()) == []
