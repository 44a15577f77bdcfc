from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maypole.services.wording import TERMS_MAX, content_terms, stem


@pytest.mark.parametrize(
    ("question", "terms"),
    [
        ("How do try and finally interact?", ("try", "finally")),
        ("How does the with statement work?", ("with", "statement")),
        ("What does 'is' compare?", ("is",)),
        ("What's a context manager's job?", ("context", "manager", "job")),
        ("When is `__del__` called?", ("del", "called")),
        ("Ist das Straßenbahn-Fahrrad größer?", ("ist", "das", "strassenbahn", "fahrrad", "grösser")),
        ("How does a function become a generator?", ("function", "generator")),
        ("what is it?", ()),
        ("???", ()),
        ("", ()),
        ('NEAR("a" OR title:*) AND -b', ("near", "a", "title", "b")),
    ],
)
def test_terms_are_what_the_question_is_about(question: str, terms: tuple[str, ...]) -> None:
    assert content_terms(question) == terms


@given(st.text(st.characters(), max_size=400))
def test_any_text_gives_a_bounded_number_of_plain_words(question: str) -> None:
    terms = content_terms(question)
    assert len(terms) == len(set(terms)) <= TERMS_MAX
    assert all(term and '"' not in term and not term.isspace() for term in terms)
    for term in terms:
        term.encode()


@pytest.mark.parametrize(
    ("one", "other"),
    [("statement", "statements"), ("evaluate", "evaluation"), ("naming", "name"), ("class", "classes"), ("manager", "managers")],
)
def test_forms_of_a_word_share_a_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)
