"""An agent is added with one file while everything else runs, and takes part from then on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from maypole.bus import Agent
from maypole.bus.composition import open_platform
from maypole.bus.hook import Untraced
from maypole.schemas.report import ReportPublished
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.commands import Desk
from tests.support.names import unique_agent
from tests.support.world import ended, eventually, read_topic, running, states_of

FLOWS = 1000
REPORT = ReportPublished(question="q?", title="a title", markdown="text", sources=("s",), confidence=0.9)


@pytest.mark.timeout(240)
async def test_a_generated_agent_takes_part_in_the_next_flow_only(kafka: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"MAYPOLE_KAFKA": kafka})
    made = await desk.run("new", "agent", "translate", "--on", "report.published", "--emits", "report.translated")
    assert made.code == 0, made.err
    source = (tmp_path / "translate.py").read_text()
    assert len([line for line in source.splitlines() if line.strip()]) <= 15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test_translate.py", "translate.py"], "no other file was touched"

    filing = Agent(unique_agent("filing"))

    @filing.on(ReportPublished)
    async def file(report: ReportPublished) -> None: ...

    async with open_platform(Settings(home=tmp_path / "home", kafka=kafka)) as platform:
        for declaration in platform.catalog.view.active():
            await platform.catalog.retire(declaration["name"])
        bus = platform.bus("tests", Untraced())
        async with running(platform, filing):
            published = await asyncio.gather(*(bus.publish(REPORT) for _ in range(FLOWS)))
            flows = [one.flow_id for one in published]
            await eventually(
                lambda: states_of(platform, flows),
                lambda states: all(state.state is State.COMMITTED for state in states.values()),
                seconds=60,
            )
            async with desk.running("run", "translate.py"):
                followed = await desk.run("publish", "report.published", "--data", REPORT.model_dump_json(), "--follow", "-o", "json")
                assert followed.code == 0, followed.err
                assert "report.translated" in followed.err
                flow = followed.json["flow_id"]
                state = await ended(platform, flow)
        translated = await read_topic(platform, "report.translated")
    assert {step.agent for step in state.expected.values()} == {filing.name, "translate"}
    assert [record.key for record in translated] == [flow.encode()], "of a thousand and one flows, only the next"
    shown = await desk.run("schemas", "show", "report.translated")
    assert shown.code == 0
    assert "question" in shown.out, "a process that has never seen the class reads the event"
