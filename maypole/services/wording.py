"""What a question is about: its words, without those that only hold the sentence together.

Shared by research (what to search for) and analysis (which sentences answer). English; a question in another
language keeps all its words, which costs precision and nothing else.
"""

from __future__ import annotations

import re
import unicodedata

SECTION_SEPARATOR = " / "
"""Between the titles that lead to a passage, outermost first: `The try statement / finally clause`."""

TERMS_MAX = 32
"""Of a longer question the first terms count. More would cost time and drown each other."""

# The typographic marks are meant: people paste them.
_WORD = re.compile(r"[^\W_]+")
_QUOTED = re.compile(
    r"`([^`]{1,80})`|\"([^\"]{1,80})\"|(?<!\w)'([^']{1,80})'(?!\w)"
    r"|“([^”]{1,80})”|‘([^’]{1,80})’"  # noqa: RUF001
)
_CONTRACTION = re.compile(r"(?<=\w)['’](?:s|t|d|m|ll|re|ve)\b", re.IGNORECASE)  # noqa: RUF001

_GRAMMAR = frozenset(
    """
    a an the this that these those some any each every all both either neither other another such same
    i me my we us our you your he she it its they them their one ones someone anyone
    am is are was were be been being do does did doing done have has had having
    can could may might must shall should will would cannot
    and or but nor so if then than as because since unless until though although
    of in on at by for from to into onto with without within about over under between among through during before after
    up down out off again there here not no yes too very just only also even still more most much many few
    what which who whom whose when where why how whether
    """.split()
)
"""Words that hold a sentence together."""

_FRAMING = frozenset(
    """
    mean means meaning meant work works working worked happen happens happening happened use uses using used usage useful
    explain explained explains describe describes described tell say says said show shows define definition difference differences differ
    differs different compare compared interact interacts interaction relate relates related behave behaves behaviour behavior
    purpose point example examples way ways thing things kind kinds sort please let lets make makes made get gets got want need
    exactly actually really possible allowed good best better know understand think like rule rules
    vs versus write writes writing create creates creating turn turns turned become becomes take takes taken put puts
    go goes come comes keep keeps look looks looking looked
    """.split()
)
"""Words that say which kind of answer is wanted, not what about."""

_KEYWORDS = frozenset("and as for from if in is not or with".split())
_NAMING = frozenset(
    """
    statement statements keyword keywords clause clauses operator operators loop loops expression expressions
    comparison comparisons block blocks test tests method methods function functions command commands
    """.split()
)
"""`the with statement`: a keyword of programming languages in front of one of these is spoken of, not spoken with."""


def content_terms(question: str) -> tuple[str, ...]:
    """The words a question is about, casefolded, in order, each once; empty when it has none.

    Words in quotation marks or backticks always count. Takes any text, also lone surrogates and control characters.
    """
    readable = unicodedata.normalize("NFKC", question.encode("utf-8", "ignore").decode())
    quoted = {word.casefold() for match in _QUOTED.finditer(readable) for word in _WORD.findall(match.group())}
    words = [word.casefold() for word in _WORD.findall(_CONTRACTION.sub(" ", readable))]
    terms: dict[str, None] = {}
    for word, after in zip(words, [*words[1:], ""], strict=False):
        spoken_of = word in quoted or (word in _KEYWORDS and after in _NAMING)
        if spoken_of or (word not in _GRAMMAR and word not in _FRAMING):
            terms[word] = None
    return tuple(terms)[:TERMS_MAX]


def stem(word: str) -> str:
    """A word without its commonest English endings: `statements` and `statement` are one. For comparing, not for showing."""
    word = word.casefold()
    for ending, replacement, least in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= least:
            return word[: len(word) - len(ending)] + replacement
    return word


_ENDINGS = (
    ("isations", "is", 3), ("izations", "iz", 3), ("isation", "is", 3), ("ization", "iz", 3),
    ("ations", "", 3), ("ation", "", 3), ("ions", "", 3), ("ion", "", 3), ("ings", "", 3), ("ing", "", 3),
    ("ments", "ment", 3), ("ies", "y", 2), ("ates", "", 3), ("ated", "", 3), ("ate", "", 3), ("sses", "ss", 2),
    ("ers", "", 4), ("er", "", 4), ("ors", "", 4), ("or", "", 4), ("ed", "", 3), ("es", "", 3), ("ss", "ss", 2), ("s", "", 3), ("e", "", 3),
)  # fmt: skip


def stems(text: str) -> list[str]:
    return [stem(word) for word in _WORD.findall(text)]
