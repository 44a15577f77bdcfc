"""The reference agents as a choreography: what each kind of question leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from maypole.bus.testing import Choreography, Flow
from maypole.schemas.report import ReportDelivered, ReportPublished
from maypole.schemas.research import AnalysisReady, ResearchCompleted, ResearchInconclusive, ResearchRequested
from maypole.services.analysis import analysis
from maypole.services.delivery import delivery
from maypole.services.delivery.agent import _reports
from maypole.services.report import report
from maypole.services.research import agent, research

ANSWERABLE = "What does the assert statement do?"
CAST = (research, analysis, report, delivery)


@pytest.fixture(autouse=True)
def _language_reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for told_once in (agent._corpus, _reports):
        told_once.cache_clear()
    yield
    for told_once in (agent._corpus, _reports):
        told_once.cache_clear()


def test_an_answerable_question_becomes_a_report_in_a_folder(tmp_path: Path) -> None:
    async def program() -> Flow:
        async with Choreography(CAST) as world:
            flow = await world.publish(ResearchRequested(question=ANSWERABLE, deliver_to=str(tmp_path / "reports")))
            assert await flow.finished() == "committed"
        return flow

    flow = asyncio.run(program())
    assert flow.types == ("research.requested", "research.completed", "analysis.ready", "report.published", "report.delivered")
    assert [(step.agent, step.state) for step in flow.steps] == [
        (name, "completed") for name in ("research", "analysis", "report", "delivery")
    ]
    (completed,), (analysed,), (published,) = flow.of(ResearchCompleted), flow.of(AnalysisReady), flow.of(ReportPublished)
    (delivered,) = flow.of(ReportDelivered)
    assert completed.confidence >= 0.7 and all(sentence.sources for sentence in analysed.sentences)
    assert Path(delivered.where).parent == tmp_path / "reports"
    assert Path(delivered.where).read_text() == published.markdown


async def test_a_weakly_covered_question_stops_at_the_border_of_analysis() -> None:
    async with Choreography(CAST) as world:
        flow = await world.publish(ResearchRequested(question="How do I read a CSV file into a list?"))
        assert await flow.finished() == "compensated"
    (letter,) = flow.dead_letters
    assert flow.types == ("research.requested", "research.completed")
    assert (letter.agent, letter.reason) == ("analysis", "contract_refused") and "confidence >= 0.7" in letter.error


async def test_a_question_from_elsewhere_ends_inconclusive() -> None:
    async with Choreography(CAST) as world:
        flow = await world.publish(ResearchRequested(question="What is the capital of Mongolia?"))
        assert await flow.finished() == "committed"
    assert flow.types == ("research.requested", "research.inconclusive") and flow.dead_letters == ()
    assert flow.of(ResearchInconclusive)[0].reason


async def test_reports_survive_the_death_of_the_agent_that_writes_them(tmp_path: Path) -> None:
    async with Choreography(CAST, home=tmp_path) as world:
        await world.kill(report)
        flow = await world.publish(ResearchRequested(question=ANSWERABLE))
        await world.start(report)
        assert await flow.finished() == "committed"
    assert len(flow.of(ReportDelivered)) == 1
