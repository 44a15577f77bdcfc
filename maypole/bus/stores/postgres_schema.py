"""The tables of the PostgreSQL ledger, as numbered migrations, and the statements on them. All agents share the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, LiteralString

_ROW: Final = "flow_id text NOT NULL, topic text NOT NULL, partition integer NOT NULL"

MIGRATIONS: Final[tuple[tuple[LiteralString, ...], ...]] = (
    (
        (
            "CREATE TABLE maypole_steps (agent text, id uuid, state text NOT NULL, attempt integer NOT NULL, owner text NOT NULL, "
            "lease_until_ms bigint NOT NULL, alive_until_ms bigint NOT NULL, acts boolean NOT NULL, effect text NOT NULL, "
            f"{_ROW}, updated_ms bigint NOT NULL, outcome bytea NOT NULL, undo bytea NOT NULL, PRIMARY KEY (agent, id))"
        ),
        "CREATE INDEX maypole_steps_by_age ON maypole_steps (agent, updated_ms)",
        "CREATE INDEX maypole_steps_unsettled ON maypole_steps (agent, topic, partition) WHERE state IN ('STARTED', 'FENCED')",
        (
            "CREATE TABLE maypole_memos (agent text, id uuid, name text, value bytea NOT NULL, at_ms bigint NOT NULL, "
            "PRIMARY KEY (agent, id, name))"
        ),
        "CREATE INDEX maypole_memos_by_age ON maypole_memos (agent, at_ms)",
        (
            f"CREATE TABLE maypole_joins (agent text, join_id text, {_ROW}, state integer NOT NULL, since_ms bigint NOT NULL, "
            "PRIMARY KEY (agent, join_id))"
        ),
        "CREATE INDEX maypole_joins_by_age ON maypole_joins (agent, since_ms)",
        "CREATE INDEX maypole_joins_open ON maypole_joins (agent, topic, partition) WHERE state = 0",
        (
            f"CREATE TABLE maypole_parts (agent text, join_id text, type text, event_id text NOT NULL, {_ROW}, body bytea NOT NULL, "
            "PRIMARY KEY (agent, join_id, type), FOREIGN KEY (agent, join_id) REFERENCES maypole_joins ON DELETE CASCADE)"
        ),
    ),
    ("ALTER TABLE maypole_steps ADD COLUMN generation integer NOT NULL DEFAULT 1",),
    (
        "ALTER TABLE maypole_joins ADD COLUMN completed_by text",
        "ALTER TABLE maypole_parts ADD COLUMN needed integer NOT NULL DEFAULT 0",
    ),
    (
        "ALTER TABLE maypole_steps ADD COLUMN turn integer NOT NULL DEFAULT 0",
        "CREATE INDEX maypole_steps_awaited ON maypole_steps (agent, topic, partition) WHERE turn = 1",
    ),
)
"""Only ever grows at its end."""


@dataclass(frozen=True, slots=True)
class Tables:
    """A set of tables that changes by numbered migrations. `what` names it to people; `version` is the table with its number."""

    what: str
    version: LiteralString
    migrations: tuple[tuple[LiteralString, ...], ...]


LEDGER: Final = Tables("ledger", "maypole_ledger_version", MIGRATIONS)

FIELDS: Final = (
    "id, state, attempt, owner, lease_until_ms, alive_until_ms, acts, effect, flow_id, topic, partition, updated_ms, outcome, undo, "
    "generation, turn"
)
_FIELDS_WITHOUT_OUTCOME: Final = (
    "id, state, attempt, owner, lease_until_ms, alive_until_ms, acts, effect, flow_id, topic, partition, updated_ms, ''::bytea, undo, "
    "generation, turn"
)
FIND: Final = f"SELECT {FIELDS} FROM maypole_steps WHERE agent = %s AND id = ANY(%s)"
# In one order, so that two owners of the same steps wait for each other and not for ever.
FIND_AND_LOCK: Final = f"{FIND} ORDER BY id FOR UPDATE"
_ROWS: Final = (
    f"INSERT INTO maypole_steps (agent, {FIELDS}) SELECT %s, * FROM unnest(%s::uuid[], %s::text[], %s::integer[], %s::text[], "
    "%s::bigint[], %s::bigint[], %s::boolean[], %s::text[], %s::text[], %s::text[], %s::integer[], %s::bigint[], %s::bytea[], "
    "%s::bytea[], %s::integer[], %s::integer[]) ON CONFLICT (agent, id) DO "
)
ADD: Final = f"{_ROWS} NOTHING"
CHANGE: Final = (
    f"{_ROWS} UPDATE SET "
    "(state, attempt, owner, lease_until_ms, alive_until_ms, acts, effect, updated_ms, outcome, undo, generation, turn) = "
    "(excluded.state, excluded.attempt, excluded.owner, excluded.lease_until_ms, excluded.alive_until_ms, excluded.acts, "
    "excluded.effect, excluded.updated_ms, excluded.outcome, excluded.undo, excluded.generation, excluded.turn)"
)
UNSETTLED: Final = (
    f"SELECT {_FIELDS_WITHOUT_OUTCOME} FROM maypole_steps "
    "WHERE agent = %s AND topic = %s AND partition = %s AND (state IN ('STARTED', 'FENCED') OR turn = 1)"
)
FORGET: Final[tuple[LiteralString, ...]] = (
    (
        "DELETE FROM maypole_steps WHERE (agent, id) IN "
        "(SELECT agent, id FROM maypole_steps WHERE agent = %s AND updated_ms < %s ORDER BY updated_ms LIMIT %s)"
    ),
    (
        "DELETE FROM maypole_memos WHERE (agent, id, name) IN "
        "(SELECT agent, id, name FROM maypole_memos WHERE agent = %s AND at_ms < %s ORDER BY at_ms LIMIT %s)"
    ),
    (
        "DELETE FROM maypole_joins WHERE (agent, join_id) IN "
        "(SELECT agent, join_id FROM maypole_joins WHERE agent = %s AND since_ms < %s ORDER BY since_ms LIMIT %s)"
    ),
)
