"""Full-text search with SQLite's FTS5 and its BM25, on an index kept on disk.

The index is a cache: it is named by the digest of what it was built from, built beside and moved into place, and
rebuilt when it cannot be read. Losing it costs a second.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import sqlite3
import threading
from collections.abc import Sequence, Set
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from maypole.services.research.corpus import Corpus
from maypole.services.research.passages import Passage
from maypole.services.wording import content_terms, stem

FORMAT = 1
"""Raised when passages are cut or stored differently, so that no older index is taken for a current one."""

CANDIDATES_MAX = 24
INDEXES_KEPT = 3
_BM25 = "-bm25(passages, 3.0, 1.0, 0.4)"
"""A word in a title counts as three in the prose; one in code or a grammar as less than half."""

_CODE = re.compile(r"^(`{3,})\n.*?\n\1$", re.MULTILINE | re.DOTALL)

_SATURATED = 2.2
"""k1 + 1: what FTS5's BM25 gives a term, in units of its weight, as its count grows without bound (k1 = 1.2)."""


@dataclass(frozen=True, slots=True)
class Match:
    """`score` is BM25, raised by up to a half the more its title is made of the question's words: higher is better.

    `presence` says for each term of the question, from 0 (absent) to 1 (everywhere), how much the passage is about it:
    its share of BM25 over the most that BM25 can give. `at` is its place in the corpus, in reading order.
    """

    passage: Passage
    score: float
    presence: tuple[float, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Retrieval:
    """`weights` are the terms' inverse document frequencies: ln(1 + (N - n + 0.5) / (n + 0.5)); a word the corpus
    does not have weighs most. `matches` come best first."""

    terms: tuple[str, ...]
    weights: tuple[float, ...]
    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Index:
    path: Path

    def search(self, question: str) -> Retrieval:
        """Takes any text. Milliseconds on the language reference, and it reads a file: not for the event loop."""
        terms = content_terms(question)
        if not terms:
            return Retrieval((), (), ())
        with closing(_open(self.path)) as db:
            return _search(db, terms)


def index_of(corpus: Corpus, folder: Path) -> tuple[Index, tuple[str, ...]]:
    """The index of a corpus as it is now, and what was left out if it had to be built.

    Safe to repeat and to race: whoever moves last wins, with the same content. Raises `CorpusUnusable`.
    """
    digest = hashlib.sha256(f"{FORMAT} {sqlite3.sqlite_version} {corpus.digest()}".encode()).hexdigest()[:24]
    path = folder / f"index-{digest}.sqlite3"
    if _readable(path):
        return Index(path), ()
    folder.mkdir(parents=True, exist_ok=True)
    _build(corpus, path)
    _forget_old(folder)
    return Index(path), corpus.left_out()


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _readable(path: Path) -> bool:
    try:
        with closing(_open(path)) as db:
            return bool(db.execute("SELECT count(*) FROM passages WHERE passages MATCH 'a'").fetchone())
    except sqlite3.DatabaseError:
        return False


def _build(corpus: Corpus, path: Path) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    beside.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(beside)) as db:
            # Unsafe settings are right here: a half-written file is never moved into place.
            db.execute("PRAGMA journal_mode = OFF")
            db.execute("PRAGMA synchronous = OFF")
            db.execute(_TABLE)
            db.executemany("INSERT INTO passages VALUES (?, ?, ?, ?, ?)", (_row(passage) for passage in corpus.passages()))
            db.execute("INSERT INTO passages (passages) VALUES ('optimize')")
            db.commit()
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


_TABLE = """
    CREATE VIRTUAL TABLE passages USING fts5(
        title, prose, code, text UNINDEXED, source UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2')
"""


def _row(passage: Passage) -> tuple[str, str, str, str, str]:
    code = "\n".join(match.group() for match in _CODE.finditer(passage.text))
    return passage.title, _CODE.sub("", passage.text), code, passage.text, passage.source


def _forget_old(folder: Path) -> None:
    by_age = sorted(folder.glob("index-*.sqlite3"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_age[INDEXES_KEPT:]:
        with suppress(OSError):
            path.unlink()


def _search(db: sqlite3.Connection, terms: Sequence[str]) -> Retrieval:
    (total,) = db.execute("SELECT count(*) FROM passages").fetchone()
    candidates = db.execute(
        f"SELECT rowid, {_BM25} AS score, source, title, text FROM passages WHERE passages MATCH ? ORDER BY score DESC, rowid LIMIT ?",
        (_any_of(terms), CANDIDATES_MAX),
    ).fetchall()
    rows = [row[0] for row in candidates]
    weights, presences = [], []
    for term in terms:
        weight, presence = _presence(db, term, rows, total)
        weights.append(weight)
        presences.append(presence)
    asked = {stem(term) for term in terms}
    matches = [
        Match(
            Passage(source, title, text),
            score * (1 + 0.5 * _titled(title, asked)),
            tuple(presence.get(row, 0.0) for presence in presences),
            row,
        )
        for row, score, source, title, text in candidates
    ]
    matches.sort(key=lambda match: -match.score)
    return Retrieval(tuple(terms), tuple(weights), tuple(matches))


def _titled(title: str, asked: Set[str]) -> float:
    """The part of a title's words that the question has too: 1 for `Lambdas` when lambdas were asked about."""
    words = [stem(word) for word in content_terms(title)]
    return sum(word in asked for word in words) / len(words) if words else 0.0


def _any_of(terms: Sequence[str]) -> str:
    """A query for any term, with neighbours also as phrases, so that `list comprehension` beats `list` here and `comprehension` there.

    Terms are letters and digits only (`content_terms`), and quoted: nothing in them can be FTS5 syntax.
    """
    phrases = [f"{first} {second}" for first, second in pairwise(terms)]
    return " OR ".join(f'"{term}"' for term in [*terms, *phrases])


def _presence(db: sqlite3.Connection, term: str, rows: Sequence[int], total: int) -> tuple[float, dict[int, float]]:
    quoted = f'"{term}"'
    (having,) = db.execute("SELECT count(*) FROM passages WHERE passages MATCH ?", (quoted,)).fetchone()
    weight = math.log(1 + (total - having + 0.5) / (having + 0.5))
    if not having:
        return weight, {}
    ours = max(math.log((total - having + 0.5) / (having + 0.5)), 1e-6)  # as FTS5 computes it, to divide it out again
    found = db.execute(
        f"SELECT rowid, {_BM25} FROM passages WHERE passages MATCH ? AND rowid IN ({','.join('?' * len(rows))})",
        (quoted, *rows),
    )
    return weight, {row: min(1.0, score / (ours * _SATURATED)) for row, score in found}
