from __future__ import annotations

from datetime import UTC, datetime

import pytest

from maypole.schemas.research import Sentence
from maypole.services.report.markdown import Report, title_of, write

TRY = "The try statement / finally clause (python:try)"
WITH = "object.__exit__ (python:with)"


def said(text: str, *sources: str) -> Sentence:
    return Sentence(text=text, sources=sources)


def report(*answer: Sentence, question: str = "How do try and finally interact?") -> Report:
    return Report(question, answer, 0.9776, datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC), "flow-1")


def test_a_report_reads_as_an_answer_with_numbered_citations() -> None:
    written = write(
        report(
            said("`finally` always runs.", TRY),
            said("It runs last:\n\n```\n>>> f()\n42\n```", TRY),
            said("`__exit__` does too.", WITH),
            said("Even then.", TRY, WITH),
        )
    )
    assert (
        written
        == """\
# How do try and finally interact?

`finally` always runs. [1] It runs last: [1]

```
>>> f()
42
```

`__exit__` does too. [2]

Even then. [1][2]

## Sources

1. The try statement / finally clause (python:try)
2. `object.__exit__` (python:with)

---

- Confidence: 0.98 (the share of the question that the sources are about)
- Written: 2026-03-01 12:30:05 UTC
- Flow: flow-1
"""
    )


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("  What is\n a *pointer*?\x00 ", "What is a *pointer*?"),
        ("\n\t", "Report"),
        ("word " * 60, "word " * 23 + "word …"),
        ("x" * 300, "x" * 119 + "…"),
    ],
)
def test_a_title_is_one_line_of_bounded_length(question: str, title: str) -> None:
    assert title_of(question) == title


@pytest.mark.parametrize(
    ("question", "heading"),
    [
        ("What is a *pointer*?", r"# What is a \*pointer\*?"),
        ("# <b>Boo</b>", r"# \# \<b\>Boo\</b\>"),
        ("What does `*args` mean?", "# What does `*args` mean?"),
    ],
)
def test_a_question_shows_as_it_was_asked(question: str, heading: str) -> None:
    assert write(report(said("One.", TRY), question=question)).startswith(f"{heading}\n\n")


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("# no title", r"\# no title [1]"),
        ("- no list", r"\- no list [1]"),
        ("1. no number", r"1\. no number [1]"),
        ("> no quote", r"\> no quote [1]"),
    ],
)
def test_a_sentence_never_becomes_a_title_or_a_list(sentence: str, shown: str) -> None:
    assert f"\n{shown}\n" in write(report(said(sentence, TRY)))


def test_a_question_that_is_too_long_for_a_title_is_kept_below() -> None:
    assert f"\n- Question: {'word ' * 59}word\n" in write(report(said("One.", TRY), question="word " * 60))


def test_the_same_report_is_written_to_the_byte() -> None:
    assert write(report(said("One.", TRY))) == write(report(said("One.", TRY)))
