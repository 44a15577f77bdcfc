"""What a coordinator keeps: a cache of what the journal says, that can be thrown away and folded anew.

One contract for all stores. Every call raises `StoreUnavailable` while the store cannot be used (then nothing was changed,
or its answer was lost; repeat it), and `StoreCorrupt` when a person has to look at it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from maypole.bus.ledger.port import LedgerCorrupt, LedgerUnavailable
from maypole.bus.ports import Delivery
from maypole.schemas.identifiers import FlowId

StoreUnavailable = LedgerUnavailable
StoreCorrupt = LedgerCorrupt


class Superseded(RuntimeError):
    """Another coordinator has taken the partition over: what this one folds of it counts no more."""

    def __init__(self, partition: int, epoch: int) -> None:
        super().__init__(f"partition {partition} of the journal was taken over: expected epoch {epoch}, found a later one")
        self.partition = partition


class Taken(NamedTuple):
    """A partition as its new owner finds it. `next_offset` is the first record that is not folded yet."""

    epoch: int
    next_offset: int


class Row(NamedTuple):
    """One flow. `state` is the packed saga, `traces` where its steps stand in its trace.

    `due_ms` is the earliest of its deadlines, by the broker's clock; `ended_ms` when it ended. `pending`: somebody has to be
    told something, and it is not known whether that was done. `first_offset` is where the record lies that started it: no two
    flows of a partition have the same, and those that began together lie together.
    """

    flow_id: FlowId
    state: bytes
    traces: bytes
    subject: str | None
    told: str
    due_ms: int | None
    ended_ms: int | None
    pending: bool
    first_offset: int


class Parked(NamedTuple):
    """A flow whose records wait. `pin` is the choreography that nobody knows; empty: nobody has started the flow."""

    flow_id: FlowId
    pin: str
    since_ms: int
    records: int


class Changes(NamedTuple):
    """What became of one partition: `rows` are written, `parked` records are put beside the flows, `released` ones taken away.

    `rows` may be made while they are read, in whichever thread reads them, and are read again when a call is repeated.
    """

    rows: Iterable[Row]
    parked: Sequence[tuple[FlowId, str, Delivery]]
    released: Collection[FlowId]


class Store(Protocol):
    async def take(self, partition: int, version: str) -> Taken:
        """Raise the partition's epoch: from now on whoever had it is refused.

        What was folded under another `version` of the engine is forgotten, and `next_offset` is 0.
        """
        ...

    async def save(self, partition: int, epoch: int, next_offset: int, changes: Changes) -> None:
        """All of it and the next offset in one transaction. Raises `Superseded`; then nothing was changed."""
        ...

    async def load(self, partition: int, flows: Collection[FlowId]) -> Mapping[FlowId, Row]:
        """Those that are known."""
        ...

    async def due(self, partition: int, until_ms: int, limit: int) -> Sequence[FlowId]:
        """Flows with a deadline at or before this time, the earliest first."""
        ...

    async def next_due(self, partition: int) -> int | None:
        """The earliest deadline of all."""
        ...

    async def pending(self, partition: int) -> Sequence[FlowId]: ...

    async def parked(self, partition: int) -> Sequence[Parked]:
        """A flow has been started once one of its records has a pin, whatever was parked before that."""
        ...

    async def parked_records(self, partition: int, flow: FlowId) -> Sequence[Delivery]:
        """In the order of the journal."""
        ...

    async def forget(self, partition: int, ended_before_ms: int, limit: int) -> int:
        """Remove some flows that ended before this time, and say how many."""
        ...
