from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from maypole.schemas.research import ResearchCompleted, ResearchInconclusive, ResearchRequested
from maypole.services.artefacts import Artefacts
from maypole.services.research import agent
from maypole.services.research.agent import findings_are_forgotten, forget_findings, search
from maypole.services.research.corpus import CorpusUnusable
from tests.unit.services.steps import TRIGGERED_AT_MS, context


@pytest.fixture(autouse=True)
def settings_read_anew() -> Iterator[None]:
    agent._corpus.cache_clear()
    yield
    agent._corpus.cache_clear()


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "bees.md").write_text("# Honey bees\n\nA honey bee dances to show where the nectar is.\n")
    (folder / "birds.md").write_text("# Storks\n\nA stork winters in the south.\n")
    monkeypatch.setenv("MAYPOLE_CORPUS", str(folder))
    return folder


def test_what_the_language_reference_answers_is_completed_with_findings_and_sources(tmp_path: Path) -> None:
    completed = search(ResearchRequested(question="How do try and finally interact?", deliver_to="/tmp/out"), context(tmp_path))
    assert isinstance(completed, ResearchCompleted)
    assert completed.confidence >= 0.7
    assert (completed.findings[0].source, completed.findings[0].section) == ("python:try", "The try statement / finally clause")
    assert completed.findings[0].passage.startswith("If `finally` is present, it specifies a")
    assert set(completed.sources) == {finding.source for finding in completed.findings}
    assert completed.deliver_to == "/tmp/out"
    assert completed.researched_at == datetime.fromtimestamp(TRIGGERED_AT_MS / 1000, UTC)


def test_what_it_does_not_answer_is_inconclusive_with_the_reason(tmp_path: Path) -> None:
    inconclusive = search(ResearchRequested(question="How do I bake sourdough bread?"), context(tmp_path))
    assert isinstance(inconclusive, ResearchInconclusive)
    assert inconclusive.reason == "no passage has any of its words (bake, sourdough, bread)"
    assert inconclusive.best_confidence == 0.0


def test_a_folder_of_ones_own_is_searched_instead(notes: Path, tmp_path: Path) -> None:
    completed = search(ResearchRequested(question="Where do honey bees dance?"), context(tmp_path / "home"))
    assert isinstance(completed, ResearchCompleted)
    assert completed.sources == ("bees.md",)


def test_a_repeated_step_is_answered_from_what_it_kept(notes: Path, tmp_path: Path) -> None:
    request = ResearchRequested(question="Where do honey bees dance?")
    first = search(request, context(tmp_path / "home"))
    (notes / "bees.md").unlink()
    assert search(request, context(tmp_path / "home", attempt=2)) == first
    assert isinstance(search(request, context(tmp_path / "home", step="step-2")), ResearchInconclusive)


def test_files_left_out_are_logged_by_name(notes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (notes / "bad.md").write_bytes(b"\xe9t\xe9")
    with caplog.at_level(logging.WARNING):
        search(ResearchRequested(question="bees"), context(tmp_path / "home"))
    assert [record.getMessage() for record in caplog.records] == [
        f"research.left_out {notes}: bad.md: not UTF-8: byte 0 is 0xe9; save it as UTF-8"
    ]


def test_a_corpus_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYPOLE_CORPUS", str(tmp_path / "nowhere"))
    with pytest.raises(CorpusUnusable, match="nowhere does not exist"):
        search(ResearchRequested(question="bees"), context(tmp_path / "home"))


def test_findings_that_were_forgotten_are_gone_and_the_index_stays(notes: Path, tmp_path: Path) -> None:
    request = ResearchRequested(question="Where do honey bees dance?")
    home = tmp_path / "home"
    search(request, context(home))
    search(request, context(home, step="step-2"))
    assert not findings_are_forgotten(request, context(home))
    for _ in range(2):
        forget_findings(request, context(home))
    assert findings_are_forgotten(request, context(home))
    assert Artefacts(home).get("step-1") is None
    assert Artefacts(home).get("step-2") is not None, "another step's findings stay"
    assert list(home.glob("index*")), "the index belongs to no flow"
