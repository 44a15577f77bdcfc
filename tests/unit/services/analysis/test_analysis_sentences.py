from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maypole.services.analysis.sentences import split, statements


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("One. Two! Three? four.", ["One.", "Two!", "Three? four."]),
        ("See e.g. Kafka, i.e. The log. Next.", ["See e.g. Kafka, i.e. The log.", "Next."]),
        ("Call `a. B` now. Then stop.", ["Call `a. B` now.", "Then stop."]),
        ("This (see Two. Three) holds. It does.", ["This (see Two. Three) holds.", "It does."]),
        ("He said “done.” Then left.", ["He said “done.”", "Then left."]),
        ("Version 3.11 is out. `x` is new.", ["Version 3.11 is out.", "`x` is new."]),
        ("No end", ["No end"]),
        ("", []),
    ],
)
def test_a_paragraph_is_split_at_its_sentences(paragraph: str, sentences: list[str]) -> None:
    assert split(paragraph) == sentences


def test_a_sentence_keeps_the_example_or_list_it_announces() -> None:
    passage = "Plain. It prints:\n\n```\nx. Y\n```\n\nThese are false:\n\n- zero\n- nothing\n\nEnd."
    found = statements(passage)
    assert [(statement.text, statement.shown, statement.at) for statement in found] == [
        ("Plain.", "", 0),
        ("It prints:", "```\nx. Y\n```", 1),
        ("These are false:", "- zero\n- nothing", 2),
        ("End.", "", 3),
    ]
    assert not any(statement.incomplete for statement in found)


def test_a_grammar_is_dropped_and_its_sentence_stands_without() -> None:
    (statement,) = statements("It checks a condition:\n\n```\nassert_stmt ::= 'assert' expression\n```")
    assert (statement.text, statement.shown, statement.incomplete) == ("It checks a condition.", "", False)


def test_a_sentence_that_goes_on_after_its_example_is_marked() -> None:
    passage = "As in,\n\n```\nx\n```\n\nis the same as\n\n```\ny\n```\n\nWhole."
    assert [statement.incomplete for statement in statements(passage)] == [True, False, False]


def test_a_sentence_whose_list_is_too_long_is_marked() -> None:
    first, *items = statements("These:\n\n" + "\n".join(f"- Item {number} says something." for number in range(60)))
    assert first.incomplete
    assert len(items) == 60


@given(st.text("aB. !?`()\n-“”'\"", max_size=300))
def test_splitting_loses_no_word(text: str) -> None:
    paragraph = " ".join(text.split())
    assert "".join("".join(split(paragraph)).split()) == "".join(paragraph.split())
    statements(text)
