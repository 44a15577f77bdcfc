from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from maypole.schemas.research import Finding, Sentence
from maypole.services.analysis.drafting import CHARACTERS_MAX, SENTENCES_MAX, draft, reference, sources


def finding(source: str, section: str, passage: str, score: float) -> Finding:
    return Finding(source=source, section=section, passage=passage, score=score)


KAFKA = finding(
    "notes/kafka.md",
    "Partitions",
    "A partition keeps the order of its records. This holds for one partition only (see section Topics). See also the guide. "
    "Consumers of a group share the partitions among them. Brokers have disks.",
    9.0,
)
COPY = finding(
    "notes/copy.md", "Copied", "Each partition keeps the order of its records. A partition lives on one broker, its leader.", 6.0
)


def test_every_sentence_names_the_passage_it_was_taken_from() -> None:
    drafted = draft("Which broker is the leader of a partition?", [KAFKA, COPY])
    for sentence in drafted:
        (source,) = sentence.sources
        assert sentence.text.rstrip(".") in {reference(KAFKA): KAFKA, reference(COPY): COPY}[source].passage
    assert sources(drafted) == ("Partitions (notes/kafka.md)", "Copied (notes/copy.md)")


def test_a_leaning_sentence_comes_with_the_one_before_it_and_without_cross_references() -> None:
    drafted = draft("What holds for a partition?", [KAFKA])
    assert drafted[:2] == tuple(
        Sentence(text=text, sources=(reference(KAFKA),))
        for text in ("A partition keeps the order of its records.", "This holds for one partition only.")
    )


def test_asides_are_not_quoted() -> None:
    assert not any("guide" in sentence.text for sentence in draft("partition guide?", [KAFKA]))


def test_what_was_said_is_not_said_again() -> None:
    texts = [sentence.text for sentence in draft("How does a partition keep the order of records?", [KAFKA, COPY])]
    assert "A partition keeps the order of its records." in texts
    assert "Each partition keeps the order of its records." not in texts


def test_a_list_comes_with_the_sentence_that_announces_it() -> None:
    (sentence,) = draft(
        "Which values are false?", [finding("s", "Truth", "These values are considered false:\n\n- zero\n- nothing at all", 1.0)]
    )
    assert sentence.text == "These values are considered false:\n\n- zero\n- nothing at all"


def test_a_sentence_about_a_thing_that_it_does_not_name_gets_the_name() -> None:
    (sentence,) = draft(
        "When is __del__ called?",
        [finding("s", "Basic customization / object.__del__", "Called when the instance is about to be destroyed.", 1.0)],
    )
    assert sentence.text == "`object.__del__`: Called when the instance is about to be destroyed."


def test_a_sentence_between_two_chosen_ones_is_kept() -> None:
    text = "A partition has records. Nothing else is known of it here. A partition has records in order and a leader."
    assert [sentence.text for sentence in draft("partition records", [finding("s", "t", text, 1.0)])] == [
        "A partition has records.",
        "Nothing else is known of it here.",
        "A partition has records in order and a leader.",
    ]


def test_the_same_research_gives_the_same_draft() -> None:
    assert draft("How do partitions work?", [KAFKA, COPY]) == draft("How do partitions work?", [KAFKA, COPY])


def test_something_is_said_even_where_no_sentence_is_a_good_one() -> None:
    assert draft("What?", [finding("s", "T", "short", 1.0)]) == (Sentence(text="short", sources=("T (s)",)),)
    assert draft("What?", [finding("s", "t", "```\ncode only\n```", 1.0)]) == (
        Sentence(text="t:\n\n```\ncode only\n```", sources=("t (s)",)),
    )


_PASSAGES = st.lists(
    st.builds(
        finding,
        st.just("s"),
        st.text(max_size=20),
        st.text("ab .:\n-`Thisoevr", min_size=1, max_size=2000).filter(str.strip),
        st.floats(0, 50),
    ),
    min_size=1,
    max_size=5,
)


@given(st.text(max_size=60), _PASSAGES)
def test_a_draft_is_bounded_and_never_empty(question: str, findings: list[Finding]) -> None:
    drafted = draft(question, findings)
    assert 1 <= len(drafted) <= SENTENCES_MAX
    assert all(sentence.text.strip() for sentence in drafted)
    assert sum(len(sentence.text) for sentence in drafted) <= CHARACTERS_MAX + 2500
