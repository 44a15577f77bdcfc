from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maypole.services.research.corpus import CorpusUnusable, Folder, LanguageReference
from maypole.services.research.retrieval import INDEXES_KEPT, Index, index_of

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return index_of(LanguageReference(), tmp_path_factory.mktemp("index"))[0]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "kafka.md").write_text(
        "# Kafka\n\nA partition keeps the order of its records.\n\n# Zookeeper\n\nKafka had it once. Records were elsewhere."
    )
    return folder


def test_the_passage_about_the_words_comes_first(reference: Index) -> None:
    assert reference.search("How do try and finally interact?").matches[0].passage.title == "The try statement / finally clause"
    assert reference.search("What does the assert statement do?").matches[0].passage.source == "python:assert"


def test_presence_tells_a_title_from_a_mention_from_nothing(notes: Path, tmp_path: Path) -> None:
    index, _ = index_of(Folder(notes), tmp_path / "home")
    found = index.search("kafka partition gibberish")
    assert found.terms == ("kafka", "partition", "gibberish")
    kafka, partition, gibberish = found.matches[0].presence
    assert kafka > partition > gibberish == 0.0
    assert found.weights[2] > found.weights[1] > found.weights[0] > 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    question=st.one_of(
        st.text(max_size=200),
        st.sampled_from(
            ['"', "a OR", "NEAR(", "title:", "*", "^x", "{a b}: c", "-", "a AND NOT", "\ud800", "\0", "日本語 の 質問", "'; DROP TABLE"]
        ),
    )
)
def test_any_question_is_a_search(reference: Index, question: str) -> None:
    found = reference.search(question)
    assert all(len(match.presence) == len(found.terms) and all(0 <= value <= 1 for value in match.presence) for match in found.matches)


def test_a_search_is_repeatable(reference: Index) -> None:
    assert reference.search("list comprehension scope") == reference.search("list comprehension scope")


def test_an_index_is_built_once_and_again_when_a_file_changes(notes: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first, _ = index_of(Folder(notes), home)
    built = first.path.stat().st_mtime_ns
    assert index_of(Folder(notes), home) == (first, ())
    assert first.path.stat().st_mtime_ns == built
    (notes / "new.txt").write_text("Zebras have stripes.")
    second, _ = index_of(Folder(notes), home)
    assert second != first
    assert [match.passage.source for match in second.search("zebras").matches] == ["new.txt"]


def test_what_was_left_out_is_told_when_the_index_is_built(notes: Path, tmp_path: Path) -> None:
    (notes / "bad.md").write_bytes(b"\xff\xfe\x00x\x80"[2:])
    assert index_of(Folder(notes), tmp_path / "home")[1] == ("bad.md: binary",)


def test_a_damaged_index_is_built_again(notes: Path, tmp_path: Path) -> None:
    index, _ = index_of(Folder(notes), tmp_path)
    index.path.write_bytes(b"garbage" * 1000)
    again, _ = index_of(Folder(notes), tmp_path)
    assert again.search("kafka").matches


def test_a_corpus_without_text_leaves_no_index_behind(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusUnusable):
        index_of(Folder(tmp_path / "empty"), tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []


def test_builders_that_race_end_with_one_index(notes: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        indexes = set(pool.map(lambda _: index_of(Folder(notes), tmp_path / "home")[0], range(4)))
    assert len(indexes) == 1
    assert next(iter(indexes)).search("kafka").matches


def test_old_indexes_are_forgotten(notes: Path, tmp_path: Path) -> None:
    for number in range(INDEXES_KEPT + 3):
        (notes / f"{number}.md").write_text("more")
        index_of(Folder(notes), tmp_path / "home")
    assert len(list((tmp_path / "home").glob("index-*"))) == INDEXES_KEPT
