"""An agent is added with one file while everything else runs, and takes part from then on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from maypole.bus import Agent, Reject
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

    refusing = Agent(unique_agent("refusing"))

    @refusing.on("report.translated")
    async def refuse(translated: Mapping[str, Any]) -> None:
        raise Reject("to see what the command line makes of an event that only one agent's file declares")

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
                async with running(platform, refusing):
                    refused = await desk.run("publish", "report.published", "--data", REPORT.model_dump_json(), "--follow", "-o", "json")
                    assert refused.code == 4, refused.err
                    place, *_ = refused.err.rpartition("dlq show ")[2].split()
                    letter = await desk.run("dlq", "show", place, "-o", "json")
        decoded = letter.json
        translated = await read_topic(platform, "report.translated")
    assert {step.agent for step in state.expected.values()} == {filing.name, "translate"}
    flows_translated = sorted((record.key or b"").decode() for record in translated)
    assert flows_translated == sorted([flow, refused.json["flow_id"]]), "of a thousand and two flows, only those after it"
    assert (decoded["topic"], decoded["agent"], decoded["data_error"]) == ("report.translated", refusing.name, None)
    assert decoded["data"] == {"question": REPORT.question}, "a process that has never seen the class reads the event"
