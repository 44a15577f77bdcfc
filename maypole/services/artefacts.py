"""What an agent has made, kept in a file of its own: cached research, a draft, a report, a delivered copy.

It answers a repeated step with what the first one made, and it is what a later undo takes back. One SQLite file in
the agent's home; a connection lives as long as one call, so there is nothing to close when an agent stops.
A call takes 0.4 ms (`get`) to 2 ms (`keep`) and may wait for another process: handlers make it in a thread.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

FILE = "artefacts.sqlite3"

_WAIT_SECONDS = 5.0
_TABLE = "CREATE TABLE IF NOT EXISTS artefacts (step_id TEXT PRIMARY KEY, flow_id TEXT NOT NULL, body TEXT NOT NULL) WITHOUT ROWID"
_BROKEN = ("file is not a database", "malformed", "no such column", "has no column", "unsupported file format", "encrypted")


class StoreUnusable(RuntimeError):
    """The agent's file cannot be used. Names the file, what was found, and what to do."""


_OPENING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Artefacts:
    """Keyed by step: an agent makes one artefact a step, and the same one when the step is repeated.

    Every method may be called from any thread and by several processes; each is one transaction that survives the
    death of the process. Raises `StoreUnusable`.
    """

    home: Path

    def get(self, step_id: str) -> str | None:
        with self._open() as db:
            row = db.execute("SELECT body FROM artefacts WHERE step_id = ?", (step_id,)).fetchone()
        return None if row is None else str(row[0])

    def keep(self, step_id: str, flow_id: str, body: str) -> str:
        """Keep it unless the step has one already; returns the one that is kept. Safe to repeat and to race."""
        with self._open() as db, db:
            db.execute("INSERT INTO artefacts VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (step_id, flow_id, body))
            return str(db.execute("SELECT body FROM artefacts WHERE step_id = ?", (step_id,)).fetchone()[0])

    def count(self, flow_id: str) -> int:
        """How many there are of a flow."""
        with self._open() as db:
            return int(db.execute("SELECT count(*) FROM artefacts WHERE flow_id = ?", (flow_id,)).fetchone()[0])

    def remove(self, step_id: str) -> bool:
        """Whether there was one. Safe to repeat."""
        with self._open() as db, db:
            return db.execute("DELETE FROM artefacts WHERE step_id = ?", (step_id,)).rowcount > 0

    @property
    def path(self) -> Path:
        return self.home / FILE

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_WAIT_SECONDS)) as db:
                # A reader never waits for a writer. A power failure may take the last artefacts with it, and never
                # the file: the steps they belong to are then answered by computing them again.
                # SQLite does not wait its turn for the change of mode, so threads take turns here.
                with _OPENING:
                    db.execute("PRAGMA journal_mode = WAL")
                    db.execute("PRAGMA synchronous = NORMAL")
                    db.execute(_TABLE)
                yield db
        except sqlite3.DatabaseError as error:
            raise StoreUnusable(self._explained(error)) from error
        except OSError as error:
            raise StoreUnusable(
                f"{self.home} must be a folder that can be written: {error.strerror}; set MAYPOLE_HOME to one that can"
            ) from error

    def _explained(self, error: sqlite3.DatabaseError) -> str:
        if any(sign in str(error) for sign in _BROKEN):
            return (
                f"{self.path} is not a store of this agent, or is damaged ({error}); move it away and start the agent again: "
                "it holds copies of what was made, and a repeated step makes its own again"
            )
        if "locked" in str(error):
            return (
                f"{self.path} was locked by another process for {_WAIT_SECONDS:g} s ({error}); "
                "end that process, or give this one a MAYPOLE_HOME of its own"
            )
        return f"{self.path} cannot be used ({error}); check its permissions and the space left on its disk"
