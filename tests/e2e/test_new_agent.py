"""An agent is added with one file while everything else runs, and takes part from then on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import maypole
from maypole.bus import Agent, Reject
from maypole.bus.composition import open_platform
from maypole.bus.hook import Untraced
from maypole.schemas.report import ReportPublished
from maypole.services.cli.targets import REFERENCE_AGENTS
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.commands import Desk
from tests.support.names import unique_agent
from tests.support.world import ended, eventually, read_topic, running, states_of

FLOWS = 1000
QUESTION = '{"question": "What does the assert statement do?"}'
REPORT = ReportPublished(question="q?", title="a title", markdown="text", sources=("s",), confidence=0.9)


@pytest.mark.timeout(360)
async def test_a_generated_agent_takes_part_in_the_next_flow_only(kafka: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"MAYPOLE_KAFKA": kafka})
    installed = files_of_maypole()
    made = await desk.run("new", "agent", "translate", "--on", "report.published", "--emits", "report.translated")
    assert made.code == 0, made.err
    source = (tmp_path / "translate.py").read_text()
    assert len([line for line in source.splitlines() if line.strip()]) <= 15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test_translate.py", "translate.py"]

    refusing = Agent(unique_agent("refusing"))

    @refusing.on("report.translated")
    async def refuse(translated: Mapping[str, Any]) -> None:
        raise Reject("to see what the command line makes of an event that only one agent's file declares")

    async with open_platform(Settings(home=tmp_path / "home", kafka=kafka)) as platform, AsyncExitStack() as rest:
        for declaration in platform.catalog.view.active():
            await platform.catalog.retire(declaration["name"])
        await rest.enter_async_context(desk.running("run", *REFERENCE_AGENTS, "--temporary"))
        await platform.catalog.refresh()
        bus = platform.bus("tests", Untraced())
        published = await asyncio.gather(*(bus.publish(REPORT) for _ in range(FLOWS)))
        flows = [one.flow_id for one in published]
        await eventually(
            lambda: states_of(platform, flows), lambda states: all(state.state is State.COMMITTED for state in states.values()), seconds=120
        )
        async with desk.running("run", "translate.py"):
            followed = await desk.run("publish", "research.requested", "--data", QUESTION, "--follow", "-o", "json")
            assert followed.code == 0, followed.err
            assert "report.published -> report.translated" in followed.err
            flow = followed.json["flow_id"]
            state = await ended(platform, flow)
            # Delivery is a point of no return: what is refused beside it could not be undone.
            await rest.aclose()
            async with running(platform, refusing):
                refused = await desk.run("publish", "report.published", "--data", REPORT.model_dump_json(), "--follow", "-o", "json")
                assert refused.code == 4, refused.err
                place, *_ = refused.err.rpartition("dlq show ")[2].split()
                letter = await desk.run("dlq", "show", place, "-o", "json")
        decoded = letter.json
        translated = await read_topic(platform, "report.translated")
    assert {step.agent for step in state.expected.values()} == {"research", "analysis", "report", "delivery", "translate"}
    flows_translated = sorted((record.key or b"").decode() for record in translated)
    assert flows_translated == sorted([flow, refused.json["flow_id"]]), "of a thousand and two flows, only those after it"
    assert (decoded["topic"], decoded["agent"], decoded["data_error"]) == ("report.translated", refusing.name, None)
    assert decoded["data"] == {"question": REPORT.question}, "a process that has never seen the class reads the event"
    assert files_of_maypole() == installed, "no other file was touched"
    assert sorted(path.name for path in tmp_path.rglob("*.py")) == ["test_translate.py", "translate.py"]


def files_of_maypole() -> dict[Path, tuple[int, int]]:
    """Everything that is installed of it: when it was written, and how large it is."""
    everything = (path for path in Path(maypole.__file__).parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in everything}
