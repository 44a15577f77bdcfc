from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from maypole.services.research.confidence import FINDINGS_MAX, judge, share
from maypole.services.research.corpus import LanguageReference
from maypole.services.research.passages import Passage
from maypole.services.research.retrieval import Index, Match, Retrieval, index_of

ENOUGH = 0.7
"""What analysis requires."""

QUESTIONS = tomllib.loads(Path(__file__).with_name("reference_questions.toml").read_text())


def tuned(kind: str) -> list[str]:
    return list(QUESTIONS["tuned"][kind])


def held_out(kind: str) -> list[str]:
    return list(QUESTIONS["held_out"][kind])


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return index_of(LanguageReference(), tmp_path_factory.mktemp("index"))[0]


@pytest.mark.parametrize("question", tuned("answerable"))
def test_an_answerable_question_is_enough_for_analysis(reference: Index, question: str) -> None:
    verdict = judge(reference.search(question))
    assert verdict.confidence >= ENOUGH
    assert 1 <= len(verdict.findings) <= FINDINGS_MAX


@pytest.mark.parametrize("question", tuned("weak"))
def test_a_weakly_covered_question_is_not_enough(reference: Index, question: str) -> None:
    assert 0 < judge(reference.search(question)).confidence < ENOUGH


@pytest.mark.parametrize("question", tuned("unanswerable"))
def test_a_question_from_elsewhere_is_inconclusive(reference: Index, question: str) -> None:
    verdict = judge(reference.search(question))
    assert verdict.findings == ()
    assert verdict.reason


@pytest.mark.parametrize("question", tuned("missed"))
def test_a_known_miss_is_found_at_least(reference: Index, question: str) -> None:
    assert judge(reference.search(question)).findings


def test_four_of_five_held_out_questions_that_are_answerable_are_enough(reference: Index) -> None:
    verdicts = [judge(reference.search(question)) for question in held_out("answerable")]
    assert all(verdict.findings for verdict in verdicts)
    assert sum(verdict.confidence >= ENOUGH for verdict in verdicts) >= 0.8 * len(verdicts)


def test_no_held_out_question_that_is_not_answerable_is_enough(reference: Index) -> None:
    for question in [*held_out("weak"), *held_out("unanswerable")]:
        assert judge(reference.search(question)).confidence < ENOUGH


def test_four_of_five_held_out_questions_from_elsewhere_are_inconclusive(reference: Index) -> None:
    inconclusive = [not judge(reference.search(question)).findings for question in held_out("unanswerable")]
    assert sum(inconclusive) >= 0.8 * len(inconclusive)


def test_most_weak_questions_still_have_findings(reference: Index) -> None:
    weak = [*tuned("weak"), *held_out("weak")]
    assert sum(bool(judge(reference.search(question)).findings) for question in weak) >= len(weak) / 2


def match(*presence: float) -> Match:
    return Match(Passage("source", "title", "text"), 1.0, presence, at=1)


def test_a_rare_word_that_is_missing_costs_more_than_a_common_one() -> None:
    assert share([7.0, 1.0], [0.9, 0.0]) > share([7.0, 1.0], [0.0, 0.9])
    assert share([7.0, 1.0], [0.0, 0.0]) == 0.0
    assert share([], []) == 0.0


def test_one_word_of_several_is_chance() -> None:
    verdict = judge(Retrieval(("capital", "mongolia"), (5.0, 7.0), (match(0.9, 0.0),)))
    assert verdict.findings == ()
    assert verdict.reason == "no passage has more than one of its words; not found at all: mongolia"


def test_a_question_of_one_word_may_be_answered() -> None:
    assert judge(Retrieval(("lambda",), (4.0,), (match(0.9),))).confidence == pytest.approx(0.9968)


def test_words_spread_over_passages_count_less_than_words_together() -> None:
    terms, weights = ("a", "b", "c"), (3.0, 3.0, 3.0)
    together = judge(Retrieval(terms, weights, (match(0.8, 0.8, 0.8),)))
    spread = judge(Retrieval(terms, weights, (match(0.8, 0.8, 0.0), match(0.0, 0.8, 0.8))))
    assert spread.confidence < together.confidence


def test_a_passage_that_covers_little_beside_the_best_is_no_finding() -> None:
    best, noise = match(0.9, 0.9, 0.9), match(0.0, 0.0, 0.3)
    assert judge(Retrieval(("a", "b", "c"), (3.0, 3.0, 3.0), (noise, best))).findings == (best,)


def test_findings_are_the_best_section_first_and_each_section_in_its_own_order() -> None:
    def found(title: str, at: int) -> Match:
        return Match(Passage("source", title, "text"), 1.0, (0.9,), at)

    verdict = judge(Retrieval(("a",), (3.0,), (found("B", 9), found("A", 2), found("B", 7))))
    assert [(match.passage.title, match.at) for match in verdict.findings] == [("B", 7), ("B", 9), ("A", 2)]


def test_nothing_to_search_for_and_nothing_found_are_told_apart() -> None:
    assert judge(Retrieval((), (), ())).reason == "the question has no word to search for"
    assert judge(Retrieval(("bread",), (7.0,), ())).reason == "no passage has any of its words (bread)"
