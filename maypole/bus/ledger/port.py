"""The port between the runtime and a store that remembers what became of each step.

One contract suite (`tests/contract/ledger`) holds SQLite, PostgreSQL and memory to it. Every call is one transaction:
it stands when it returns, and survives the death of the process. All of them are safe to repeat. A call that was
cancelled may have been carried out. Every call raises `LedgerUnavailable` when the store cannot be reached or written
now (nothing was changed, or its answer was lost: wait and call again) and `LedgerCorrupt` when waiting will not help.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from maypole.bus.ledger.step import Step
from maypole.bus.ledger.transitions import Input, Verdict
from maypole.bus.ports import TopicPartition
from maypole.schemas.identifiers import EventId, FlowId, StepId


class LedgerError(RuntimeError):
    """Names the store, what was found, and what to do."""


class LedgerUnavailable(LedgerError):
    """Full disk, locked file, server away: it may pass by itself."""


class LedgerCorrupt(LedgerError):
    """What is stored cannot be read, or was written by a later version, or the store will never take what is to be: a person must act."""


class LedgerInUse(LedgerError):
    """Another process works on this ledger. Names it."""


class Place(NamedTuple):
    """Where a step belongs: its flow, and the partition its trigger came from."""

    flow_id: FlowId
    at: TopicPartition


class Row(NamedTuple):
    """All that is kept of a step. `outcome` and `undo` are the runtime's bytes (`outcome.py`); empty: none."""

    step_id: StepId
    place: Place
    step: Step
    updated_ms: int
    outcome: bytes
    undo: bytes


class Ask(NamedTuple):
    """`outcome` and `undo` are kept if the input changes the step; None leaves what is there.

    `Begin.owner` and the `death` of an input are filled in by the ledger.
    """

    step_id: StepId
    asked: Input
    place: Place
    outcome: bytes | None = None
    undo: bytes | None = None


class Answer(NamedTuple):
    """`row` as it is now; None where there is none. `wait_until_ms` goes with `Verdict.WAIT`."""

    verdict: Verdict
    row: Row | None
    wait_until_ms: int = 0


class Steps(Protocol):
    @property
    def instance(self) -> str:
        """The owner of what begins here: unique for each start of a process."""
        ...

    async def ask(self, asks: Sequence[Ask]) -> Sequence[Answer]:
        """Apply inputs to steps, in order, all or nothing; a step may occur twice. Calls that wait at the same time share one commit."""
        ...

    async def rows(self, step_ids: Collection[StepId]) -> Mapping[StepId, Row]:
        """Those that exist. Cheap where none does, which is how a step without outside effects begins."""
        ...

    async def unsettled(self, partitions: Collection[TopicPartition]) -> Sequence[Row]:
        """Asked on assignment, and checked in memory where a subscription keeps no rows: what is STARTED (its flow waits
        behind it while it holds no lease; its attempts are counted), what has ended and waits for its turn to be told, and what
        is FENCED. Without outcomes."""
        ...

    async def forget(self, before_ms: int, limit: int) -> int:
        """Remove what did not change since `before_ms`, at most about `limit` rows and what belongs to them, oldest first.

        Returns how many went; fewer than `limit`: there is no more. A small bite, so that work passes between two.
        """
        ...


class Memos(Protocol):
    async def memo(self, step_id: StepId, name: str) -> bytes | None: ...

    async def memoise(self, step_id: StepId, name: str, value: bytes) -> bytes:
        """Keep the value unless there is one already; returns the one that is kept."""
        ...


class JoinState(Enum):
    OPEN = 0
    FIRED = 1
    EXPIRED = 2


class Part(NamedTuple):
    """An event that a join waits for. `join_id` is derived from flow, subscription and round; `of` is how many parts the join has."""

    join_id: str
    place: Place
    type: str
    event_id: EventId
    body: bytes
    of: int


class Join(NamedTuple):
    """`parts` by type, the first of each. `since_ms`: when the first one came, by the ledger's clock.

    `completed_by`: the event that came last, once it has fired.
    """

    join_id: str
    place: Place
    state: JoinState
    since_ms: int
    parts: Mapping[str, Part]
    completed_by: EventId | None = None


class Joins(Protocol):
    async def join(self, parts: Sequence[Part]) -> Sequence[Join]:
        """Put parts, in order; returns each part's join after it.

        The first part of a type wins, also against another event. Nothing is added once the join has fired or expired.
        With the last of its parts an open join fires, for ever and in the same transaction.
        A part is late, or came twice with different ids, where `join.parts` does not hold its `event_id`.
        A part that is held is redelivered work, and its join's step decides by its own row whether anything is left to do.
        """
        ...

    async def expire_join(self, join_id: str, place: Place) -> Join:
        """From OPEN to EXPIRED, also where no part has come yet. What has fired stays so. Returns the join after it."""
        ...

    async def joins(self, join_ids: Collection[str]) -> Mapping[str, Join]: ...

    async def open_joins(self, partitions: Collection[TopicPartition]) -> Sequence[Join]:
        """Asked on assignment: whose time must be watched."""
        ...


class Ledger(Steps, Memos, Joins, Protocol):
    """The ledger of one agent, opened by one instance of it."""
