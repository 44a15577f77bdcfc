"""The tables of the SQLite ledger, as numbered migrations.

A step's id is a hash, so an index of all steps is written at random places: at a million rows every new row would
dirty a page of its own, and cost three times what it costs at the beginning. So rows lie in order of arrival, and the
index is in two parts: `recent` is small and hot, and `old` takes over one sixteenth of the ids at a time (`SWEEP`),
many of them to a page. What is under way is in a small table of its own, because it changes until it ends.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from maypole.bus.ledger.port import LedgerCorrupt

_PLACE: Final = "flow_id TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL"
_COLUMNS: Final = (
    "state INTEGER NOT NULL, attempt INTEGER NOT NULL, owner TEXT NOT NULL, lease_until_ms INTEGER NOT NULL, "
    "alive_until_ms INTEGER NOT NULL, acts INTEGER NOT NULL, effect INTEGER NOT NULL, "
    f"{_PLACE}, updated_ms INTEGER NOT NULL, outcome BLOB NOT NULL, undo BLOB NOT NULL"
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        f"CREATE TABLE started (id BLOB PRIMARY KEY, {_COLUMNS}) WITHOUT ROWID",
        # `n` numbers the rows in the order in which they ended, so those to be forgotten first come first.
        f"CREATE TABLE ended (n INTEGER PRIMARY KEY, id BLOB NOT NULL, {_COLUMNS})",
        "CREATE INDEX fenced ON ended (topic, partition) WHERE state = 5",
        # `half` is the first half of the id. Several rows may share it, and entries may point to rows that are gone.
        "CREATE TABLE recent (half INTEGER, n INTEGER, PRIMARY KEY (half, n)) WITHOUT ROWID",
        "CREATE TABLE old (half INTEGER, n INTEGER, PRIMARY KEY (half, n)) WITHOUT ROWID",
        # Entries of `old` that point below this are gone.
        "CREATE TABLE cleaned (below INTEGER NOT NULL)",
        "INSERT INTO cleaned VALUES (0)",
        "CREATE TABLE memos (id BLOB, name TEXT, value BLOB NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (id, name)) WITHOUT ROWID",
        "CREATE INDEX memos_by_age ON memos (at_ms)",
        f"CREATE TABLE joins (join_id TEXT PRIMARY KEY, {_PLACE}, state INTEGER NOT NULL, since_ms INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE INDEX joins_by_age ON joins (since_ms)",
        "CREATE INDEX open_joins ON joins (topic, partition) WHERE state = 0",
        f"CREATE TABLE parts (join_id TEXT, type TEXT, event_id TEXT, {_PLACE}, body BLOB, PRIMARY KEY (join_id, type)) WITHOUT ROWID",
    ),
    (
        "ALTER TABLE started ADD COLUMN generation INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE ended ADD COLUMN generation INTEGER NOT NULL DEFAULT 1",
    ),
    (
        "ALTER TABLE joins ADD COLUMN completed_by TEXT",
        "ALTER TABLE parts ADD COLUMN needed INTEGER NOT NULL DEFAULT 0",
    ),
    (
        "ALTER TABLE started ADD COLUMN turn INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE ended ADD COLUMN turn INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX awaited ON ended (topic, partition) WHERE turn = 1",
    ),
)
"""Only ever grows at its end."""

SWEEP: Final = (
    "INSERT OR IGNORE INTO old SELECT half, n FROM recent WHERE half BETWEEN :low AND :high",
    "DELETE FROM recent WHERE half BETWEEN :low AND :high",
)
CLEAN: Final = "DELETE FROM old WHERE half BETWEEN :low AND :high AND n < :below"


def migrate(
    db: sqlite3.Connection,
    name: str,
    migrations: Sequence[Sequence[str]] = MIGRATIONS,
    consequence: str = "steps which finished may be repeated",
) -> None:
    """Bring the tables to this version in one transaction. Raises `LedgerCorrupt` where a later version has been at work.

    `consequence` is what to expect of a file that is begun anew. Safe beside another process that does the same.
    """
    [version] = db.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise LedgerCorrupt(
            f"{name} was written by a later Maypole: expected tables of version {len(migrations)} or earlier, found {version}; "
            f"run that version again, or move the file away and accept that {consequence}"
        )
    if version == len(migrations):
        return
    db.execute("BEGIN IMMEDIATE")
    [version] = db.execute("PRAGMA user_version").fetchone()
    for statements in migrations[version:]:
        for statement in statements:
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(migrations)}")
    db.execute("COMMIT")
