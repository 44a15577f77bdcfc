"""An answer drafted out of what was found: whole sentences, chosen and ordered, each with its source. No model.

A sentence counts by the words of the question that it has, rare ones more, by its passage's score and by standing
first in it. Sentences that lean on one before them (`This ...`, `However ...`) are taken with it or not at all.
The same research always gives the same draft.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from maypole.schemas.research import Finding, Sentence
from maypole.services.analysis.sentences import Statement, statements
from maypole.services.wording import SECTION_SEPARATOR, content_terms, stem, stems

SENTENCES_MAX = 9
PER_PASSAGE_MAX = 4
_CHOSEN_MAX = 7
"""The rest of the room is for sentences that bridge two chosen ones."""

CHARACTERS_MAX = 1800
"""Of all sentences together, what they show included."""

_SENTENCE_CHARACTERS_MAX = 480
_WORDS_MIN = 4
_WORTH_FIRST, _WORTH_OTHERS = 0.5, 0.6
"""A sentence worth less than this part of the best one is left out; what is not from the best section must be worth more."""

_ALIKE = 0.6
"""Two sentences that share this part of their words say the same."""

_LEANING = re.compile(
    r"[*(]*(?:this|these|those|that|it|its|they|their|he|she|such|however|otherwise|therefore|thus|hence|then|also|instead|but|and|or|so"
    r"|in (?:this|that) case|in these cases|in addition|in contrast|in particular|similarly|likewise|conversely|furthermore|moreover"
    r"|for example|for instance|as a result|as such|the same|the latter|the former|another|note that (?:this|it|these|they)|both"
    r"|the above|the following example|if so|if not|(?:when|if) (?:this|it)|because of this|after this|except for this)\b",
    re.IGNORECASE,
)
"""A sentence that begins like this says nothing without the one before it."""

_ASIDE = re.compile(
    r"(?:see (?:also|section|the)\b|(?:for )?(?:more|further) (?:information|details)|additional information|refer to"
    r"|(?:changed|new|added|removed) in version|deprecated|the following sections?"
    r"|\*\*note|\*\*source code|pep \d+|the (?:grammar|syntax) for)",
    re.IGNORECASE,
)
_POINTING = re.compile(
    r"\b(?:do(?:es)? (?:this|that|so)|here are (?:some|a few)|(?:shown|described|mentioned|listed|given) (?:above|below))\b", re.IGNORECASE
)
"""A sentence that points at what is not quoted with it."""

_CROSS_REFERENCE = re.compile(
    r"\s*\((?:see|described in|see also|as described in)\s[^()]*\)|, as described in the [^,.;]* section(?=[.,])", re.IGNORECASE
)
_NAME = re.compile(r"[a-z_]\w*|[\w.]*(?:\.\w+|__\w+__|\w+_\w+)")
_WITH_SUBJECT = re.compile(
    r"(?:[^\w\s]|(?:the|a|an|if|when|this|there|by|in|on|for|to|it|each|every|all|any|note|python|objects?|class(?:es)?|as|at|while)\b)",
    re.IGNORECASE,
)


@dataclass(slots=True)
class _Candidate:
    statement: Statement
    finding: int
    words: frozenset[str]
    value: float = 0.0


def draft(question: str, findings: Sequence[Finding]) -> tuple[Sentence, ...]:
    """The answer in reading order: by finding, then as the passage goes. At least one sentence; `findings` must not be empty.

    A sentence's text is Markdown, with the list or example that it announces below it after a blank line.
    """
    asked = tuple(dict.fromkeys(stem(term) for term in content_terms(question)))
    candidates = [
        _Candidate(statement, finding, frozenset(stems(statement.text)))
        for finding, found in enumerate(findings)
        for statement in statements(found.passage)
    ]
    _value(candidates, asked, findings)
    chosen = _choose(candidates, findings) or candidates[:1]
    if not chosen:  # nothing but code: it is shown under its title
        return (_sentence(f"{findings[0].section or findings[0].source}:\n\n{findings[0].passage}", findings[0]),)
    chosen.sort(key=lambda candidate: (candidate.finding, candidate.statement.at))
    return tuple(
        _sentence(_written(candidate.statement, findings[candidate.finding].section), findings[candidate.finding]) for candidate in chosen
    )


def reference(finding: Finding) -> str:
    """How a finding is cited: its place and its document."""
    return f"{finding.section} ({finding.source})" if finding.section else finding.source


def _sentence(text: str, finding: Finding) -> Sentence:
    return Sentence(text=text, sources=(reference(finding),))


def _value(candidates: Sequence[_Candidate], asked: Sequence[str], findings: Sequence[Finding]) -> None:
    total = len(candidates)
    having = {word: sum(word in candidate.words for candidate in candidates) for word in asked}
    weights = {word: math.log(1 + (total + 0.5) / (count + 0.5)) for word, count in having.items()}
    whole = sum(weights.values()) or 1.0
    best = max(finding.score for finding in findings) or 1.0
    titles = [frozenset(stems(finding.section)) for finding in findings]
    for candidate in candidates:
        # A sentence under the title that was asked about need not repeat the title's words.
        covered = sum(
            weight * (1.0 if word in candidate.words else 0.4 * (word in titles[candidate.finding])) for word, weight in weights.items()
        )
        position = 0.25 / (1 + candidate.statement.at)
        candidate.value = (covered / whole + position + _defining(candidate, asked)) * (
            0.4 + 0.6 * findings[candidate.finding].score / best
        )


def _defining(candidate: _Candidate, asked: Sequence[str]) -> float:
    """`A *context manager* is an object that ...`: the question's words right in front of the verb."""
    head = re.match(r"(.{3,60}?)\s(?:is|are|was|means|does|has|have|specif\w+|evaluates?|yields?|returns?)\b", candidate.statement.text)
    if not head:
        return 0.0
    words = [stem(word) for word in content_terms(head.group(1))]
    return 0.3 * sum(word in asked for word in words) / len(words) if words else 0.0


def _choose(candidates: Sequence[_Candidate], findings: Sequence[Finding]) -> list[_Candidate]:
    at = {(candidate.finding, candidate.statement.at): candidate for candidate in candidates}
    usable = sorted(
        (candidate for candidate in candidates if _usable(candidate.statement)), key=lambda c: (-c.value, c.finding, c.statement.at)
    )
    chosen: list[_Candidate] = []
    most = usable[0].value if usable else 0.0
    for candidate in usable:
        group = _with_what_it_leans_on(candidate, at)
        if group is None or candidate.value < most * (
            _WORTH_FIRST if findings[candidate.finding].section == findings[0].section else _WORTH_OTHERS
        ):
            continue
        new = [member for member in group if member not in chosen]
        if new and _fits(new, chosen, _CHOSEN_MAX) and not any(_alike(candidate, other) for other in chosen):
            chosen += new
    return _bridged(chosen, at)


def _bridged(chosen: list[_Candidate], at: dict[tuple[int, int], _Candidate]) -> list[_Candidate]:
    """A single sentence left out between two that were chosen is put back where there is room: its neighbours may need it."""
    for candidate in tuple(chosen):
        between, beyond = (at.get((candidate.finding, candidate.statement.at + step)) for step in (1, 2))
        if (
            between
            and beyond in chosen
            and between not in chosen
            and _usable(between.statement)
            and _fits([between], chosen, SENTENCES_MAX)
        ):
            chosen.append(between)
    return chosen


def _usable(statement: Statement) -> bool:
    words = len(statement.text.split())
    return (
        words >= _WORDS_MIN
        and len(statement.text) <= _SENTENCE_CHARACTERS_MAX
        and not statement.incomplete
        and not _ASIDE.match(statement.text.lstrip("(*"))
        and not _POINTING.search(statement.text)
        and "::=" not in statement.shown
    )


def _with_what_it_leans_on(candidate: _Candidate, at: dict[tuple[int, int], _Candidate]) -> list[_Candidate] | None:
    group = [candidate]
    while _LEANING.match(group[0].statement.text):
        before = at.get((candidate.finding, group[0].statement.at - 1))
        if before is None or len(group) == 3 or not _usable(before.statement):
            return None
        group.insert(0, before)
    return group


def _fits(new: Sequence[_Candidate], chosen: Sequence[_Candidate], sentences_max: int) -> bool:
    together = [*chosen, *new]
    of_passage = sum(candidate.finding == new[0].finding for candidate in together)
    characters = sum(len(candidate.statement.text) + len(candidate.statement.shown) for candidate in together)
    return len(together) <= sentences_max and of_passage <= PER_PASSAGE_MAX and characters <= CHARACTERS_MAX


def _alike(one: _Candidate, other: _Candidate) -> bool:
    union = len(one.words | other.words)
    return union > 0 and len(one.words & other.words) / union >= _ALIKE


def _written(statement: Statement, title: str) -> str:
    """What is under the name of a thing speaks of it without naming it (`Return True if ...`): the name goes in front."""
    text = _CROSS_REFERENCE.sub("", statement.text)
    named = title.rpartition(SECTION_SEPARATOR)[2]
    if statement.at == 0 and _NAME.fullmatch(named) and not _WITH_SUBJECT.match(text):
        text = f"`{named}`: {text}"
    return f"{text}\n\n{statement.shown}" if statement.shown else text


def sources(sentences: Iterable[Sentence]) -> tuple[str, ...]:
    """What is cited, in the order in which the answer first cites it."""
    return tuple(dict.fromkeys(source for sentence in sentences for source in sentence.sources))
