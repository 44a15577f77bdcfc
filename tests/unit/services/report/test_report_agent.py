from __future__ import annotations

from pathlib import Path

from maypole.schemas.research import AnalysisReady, Sentence
from maypole.services.artefacts import Artefacts
from maypole.services.report.agent import compose, delete_report, report_is_gone
from tests.unit.services.steps import context


def ready(question: str = "Why does a *bee* dance?") -> AnalysisReady:
    sentence = Sentence(text="A bee dances to show the way.", sources=("Bees (bees.md)",))
    return AnalysisReady(question=question, sentences=(sentence,), sources=("Bees (bees.md)",), confidence=0.9, deliver_to="/tmp/out")


def test_a_report_has_its_title_its_citations_and_the_flow(tmp_path: Path) -> None:
    published = compose(ready(), context(tmp_path))
    assert published.title == "Why does a *bee* dance?"
    assert published.markdown.startswith("# Why does a \\*bee\\* dance?\n\nA bee dances to show the way. [1]\n")
    assert "Written: 2026-02-02 02:40:00 UTC" in published.markdown
    assert "Flow: 1f3a9c2e-0000-5000-8000-000000000000" in published.markdown
    assert (published.sources, published.confidence, published.deliver_to) == (("Bees (bees.md)",), 0.9, "/tmp/out")


def test_a_repeated_step_is_answered_from_what_it_kept(tmp_path: Path) -> None:
    first = compose(ready(), context(tmp_path))
    assert compose(ready("Another?"), context(tmp_path, attempt=2)) == first


def test_a_report_that_was_deleted_is_gone_and_deleting_it_again_is_nothing(tmp_path: Path) -> None:
    compose(ready(), context(tmp_path))
    compose(ready(), context(tmp_path, step="step-2"))
    assert not report_is_gone(ready(), context(tmp_path))
    for _ in range(2):
        delete_report(ready(), context(tmp_path))
    assert report_is_gone(ready(), context(tmp_path))
    assert Artefacts(tmp_path).get("step-1") is None
    assert Artefacts(tmp_path).get("step-2") is not None, "another step's report stays"
