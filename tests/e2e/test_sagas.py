"""The reference agents when one of them fails for good, or never answers: the coordinator is a process, and is killed as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from maypole.bus import Agent
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.kafka.embedded import EmbeddedKafka
from maypole.schemas.event import Event
from maypole.schemas.identifiers import FlowId
from maypole.schemas.journal import DeadlineFired, StepCompensated
from maypole.schemas.research import ResearchRequested
from maypole.services.analysis import analysis
from maypole.services.artefacts import Artefacts
from maypole.services.cli.failing import failing
from maypole.services.cli.flow_story import FlowStory, Standing
from maypole.services.cli.running import running
from maypole.services.delivery import delivery
from maypole.services.following import Journaled, Vantage, follow, take_vantage
from maypole.services.report import report
from maypole.services.research import research
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.commands import Desk

CAST = (research, analysis, report, delivery)
PATIENCE_SECONDS = 3.0


@dataclass
class Stage:
    """Agents in this process, each of which comes and goes by itself; one flow, and its journal."""

    desk: Desk
    platform: Platform
    flow: FlowId | None = None
    vantage: Vantage | None = None
    records: list[Event] = field(default_factory=list)
    _playing: dict[str, AsyncExitStack] = field(default_factory=dict)

    async def enter(self, *agents: Agent) -> None:
        for agent in agents:
            stack = self._playing[agent.name] = AsyncExitStack()
            await stack.enter_async_context(running(self.platform, [agent], temporary=False))

    async def leave(self, *agents: Agent) -> None:
        for agent in agents:
            await self._playing.pop(agent.name).aclose()

    async def leave_all(self) -> None:
        for name in list(self._playing):
            await self._playing.pop(name).aclose()

    async def ask(self) -> None:
        self.vantage = await take_vantage(self.platform, ResearchRequested.event_type)
        published = await self.platform.bus("test", Untraced()).publish(ResearchRequested(question="What does the assert statement do?"))
        self.flow = published.flow_id

    async def wait_until(self, condition: Callable[[FlowStory], bool]) -> FlowStory:
        """What the journal tells as soon as the condition holds."""
        assert self.flow is not None and self.vantage is not None
        story, self.records = FlowStory(), []
        async with asyncio.timeout(90):
            async for seen in follow(self.platform, self.flow, self.vantage):
                if isinstance(seen, Journaled):
                    self.records.append(seen.record)
                    story.see(seen)
                    if condition(story):
                        return story
        raise AssertionError("following never ends by itself")

    def kept(self) -> dict[str, int]:
        assert self.flow is not None
        return {agent.name: Artefacts(self.platform.home / "agents" / agent.name).count(self.flow) for agent in CAST}

    async def until_the_report_is_undone_and_analysis_is_not_there(self) -> None:
        """Delivery fails only once analysis has gone: so the undoing stands still in the middle."""
        await self.enter(research, analysis, report, delivery)
        await self.leave(delivery)
        await self.ask()
        await self.wait_until(lambda story: standing(story, "report") is Standing.COMPLETED)
        await self.leave(analysis)
        assert self.kept() == {"research": 1, "analysis": 1, "report": 1, "delivery": 0}
        await self.enter(failing(delivery))
        await self.wait_until(lambda story: standing(story, "report") is Standing.UNDONE)
        assert self.kept() == {"research": 1, "analysis": 1, "report": 0, "delivery": 0}


def standing(story: FlowStory, agent: str) -> Standing | None:
    return next((step.standing for step in story.steps() if step.agent == agent), None)


def is_in(state: State) -> Callable[[FlowStory], bool]:
    return lambda story: story.saga.state is state


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Stage]:
    with EmbeddedKafka() as kafka:
        async with open_platform(Settings(home=folder / "stage", tracing="off").at(kafka.bootstrap, "the test")) as platform:
            stage = Stage(Desk(folder, {"MAYPOLE_KAFKA": kafka.bootstrap, "NO_COLOR": "1"}), platform)
            try:
                yield stage
            finally:
                await stage.leave_all()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with opened(tmp_path) as found:
        yield found


@pytest.mark.timeout(360)
async def test_a_coordinator_that_is_killed_in_the_middle_of_undoing_is_succeeded_by_one_that_finishes_it(stage: Stage) -> None:
    async with stage.desk.running("coordinator") as first:
        await stage.until_the_report_is_undone_and_analysis_is_not_there()
        first.kill()
        await first.wait()
    await stage.enter(analysis)
    async with stage.desk.running("coordinator"):
        story = await stage.wait_until(is_in(State.COMPENSATED))
    assert story.because == "delivery failed for good on report.published: rejected"
    assert [step.agent for step in story.undone] == ["report", "analysis", "research"]
    assert len([record for record in stage.records if isinstance(record, StepCompensated)]) == 3, "nothing was undone twice"
    assert stage.kept() == {"research": 0, "analysis": 0, "report": 0, "delivery": 0}


@pytest.mark.timeout(360)
async def test_so_is_one_that_is_killed_when_only_research_has_something_to_take_back(stage: Stage) -> None:
    await stage.enter(research, analysis, report, delivery)
    await stage.leave(analysis)
    async with stage.desk.running("coordinator") as first:
        await stage.ask()
        await stage.wait_until(lambda story: standing(story, "research") is Standing.COMPLETED)
        await stage.leave(research)
        await stage.enter(failing(analysis))
        await stage.wait_until(is_in(State.ABORTING))
        assert stage.kept() == {"research": 1, "analysis": 0, "report": 0, "delivery": 0}
        first.kill()
        await first.wait()
    await stage.enter(research)
    async with stage.desk.running("coordinator"):
        story = await stage.wait_until(is_in(State.COMPENSATED))
    assert story.because == "analysis failed for good on research.completed: rejected"
    assert [step.agent for step in story.undone] == ["research"]
    assert stage.kept() == {"research": 0, "analysis": 0, "report": 0, "delivery": 0}


@pytest.mark.timeout(360)
async def test_an_agent_that_never_answers_makes_its_flow_stuck_in_time_and_a_decision_ends_it_once_it_is_back(stage: Stage) -> None:
    async with stage.desk.running("coordinator", "--patience", f"{PATIENCE_SECONDS:g}s"):
        await stage.until_the_report_is_undone_and_analysis_is_not_there()
        stuck = await stage.wait_until(is_in(State.STUCK))
        silent = next(step for step in stuck.steps() if step.agent == "analysis")
        assert silent.asked is None, "repeating the command is up to a person now"
        (fired,) = (record for record in stage.records if isinstance(record, DeadlineFired))
        undone = next(step for step in stuck.steps() if step.agent == "report").told.undone
        assert undone is not None
        assert fired.due.timestamp() * 1000 == pytest.approx(undone.ms + PATIENCE_SECONDS * 1000, abs=1), "by the broker's clock"

        (listed,) = (await stage.desk.run("flows", "stuck", "-o", "json")).json
        assert listed["flow_id"] == stage.flow
        assert [(step["agent"], bool(step["next"])) for step in listed["unsettled"]] == [("research", False), ("analysis", True)]
        assert stage.kept() == {"research": 1, "analysis": 1, "report": 0, "delivery": 0}, "the list is exactly what is left"

        await stage.enter(analysis)
        words = ("saga", "decide", listed["flow_id"], "--step", silent.step_id, "--decision", "retry", "--note", "it is back")
        decided = await stage.desk.run(*words, "--timeout", "60s", seconds=90)
        assert decided.code == 0, decided.err
        assert "compensated  delivery failed for good" in decided.err and "undone: report, then analysis, then research" in decided.err
    assert stage.kept() == {"research": 0, "analysis": 0, "report": 0, "delivery": 0}
