"""How sure research is that the corpus answers the question, from 0 to 1.

The number is *the share of the question that the best passage is about*. Each word of the question counts by its
rarity in the corpus (its inverse document frequency; a word the corpus lacks counts most), times how much the passage
is about it (1 - (1 - presence)^2.5, where presence is the share of the BM25 that the word could earn at most: 0.45 for
one mention in a passage of average length, which makes 0.78; 0.8 to 0.9 where it stands in the title). The best
passage counts four fifths; one fifth is the same share for the five best passages together, because an answer may be
spread over them. A word in every title of the corpus adds nothing, a rare word that is missing costs a lot.

It says how well the words are covered, not that the sentences are true.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from maypole.services.research.retrieval import Match, Retrieval

FINDINGS_MAX = 5
FLOOR = 0.2
"""Below this nothing was found that is worth a reader's time."""

_BEST, _TOGETHER = 0.8, 0.2
_SATURATION = 2.5
"""Chosen so that one mention of every word in a passage of average length is enough for analysis: notes say things once."""

_KEPT_OF_BEST = 0.5
"""A passage that covers less than this part of what the best one covers is noise beside it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`findings` are the best section first, each section in its own order: that is how they are read.

    Without findings the search was inconclusive, and `reason` says why.
    """

    confidence: float
    findings: tuple[Match, ...]
    reason: str = ""


def judge(retrieval: Retrieval) -> Verdict:
    if not retrieval.terms:
        return Verdict(0.0, (), "the question has no word to search for")
    if not retrieval.matches:
        return Verdict(0.0, (), f"no passage has any of its words ({', '.join(retrieval.terms)})")
    shares = [share(retrieval.weights, match.presence) for match in retrieval.matches]
    best = max(shares)
    kept = tuple(match for match, covered in zip(retrieval.matches, shares, strict=True) if covered >= best * _KEPT_OF_BEST)[:FINDINGS_MAX]
    together = share(retrieval.weights, [max(column) for column in zip(*(match.presence for match in kept), strict=True)])
    confidence = round(_BEST * best + _TOGETHER * together, 4)
    if _by_chance(retrieval):
        return Verdict(confidence, (), "no passage has more than one of its words" + _missing(retrieval))
    if confidence < FLOOR:
        return Verdict(confidence, (), f"the passages found cover {confidence:.0%} of it, less than {FLOOR:.0%}" + _missing(retrieval))
    return Verdict(confidence, _in_reading_order(kept))


def _in_reading_order(matches: Sequence[Match]) -> tuple[Match, ...]:
    sections = list(dict.fromkeys((match.passage.source, match.passage.title) for match in matches))
    return tuple(sorted(matches, key=lambda match: (sections.index((match.passage.source, match.passage.title)), match.at)))


def share(weights: Sequence[float], presence: Sequence[float]) -> float:
    whole = sum(weights)
    covered = sum(weight * (1 - (1 - present) ** _SATURATION) for weight, present in zip(weights, presence, strict=True))
    return covered / whole if whole else 0.0


def _by_chance(retrieval: Retrieval) -> bool:
    """One word in common, of several, is what any two texts have: the capital of a country, and capital letters."""
    return len(retrieval.terms) > 1 and all(_present(match.presence) < 2 for match in retrieval.matches)


def _present(presence: Iterable[float]) -> int:
    return sum(value > 0 for value in presence)


def _missing(retrieval: Retrieval) -> str:
    absent = [term for at, term in enumerate(retrieval.terms) if not any(match.presence[at] for match in retrieval.matches)]
    return f"; not found at all: {', '.join(absent)}" if absent else ""
