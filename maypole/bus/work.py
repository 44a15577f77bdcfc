"""One delivery in hand, on its way from the source to the commit, and what is known of it so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from maypole.bus.dead_letters import Reason
from maypole.bus.hook import UNOBSERVED, Outcome, Processing, Sending
from maypole.bus.ledger.port import Row
from maypole.bus.ledger.transitions import UNWRITTEN
from maypole.bus.membership import Membership
from maypole.bus.moves import Move
from maypole.bus.parts import Joined
from maypole.bus.ports import Delivery, Record, TopicPartition
from maypole.bus.serving import Served
from maypole.bus.watermark import Watermark
from maypole.schemas.envelope import Envelope
from maypole.schemas.event import Event
from maypole.schemas.identifiers import EventId, StepId
from maypole.schemas.journal import Effect

_UNKNOWN: Final = StepId("")


class Ownership:
    """A partition while it is ours. Work refers to it, so that nothing of a partition that was taken away is published or committed."""

    __slots__ = ("at", "in_progress", "ours", "taking", "watermark")

    def __init__(self, at: TopicPartition) -> None:
        self.at = at
        self.watermark = Watermark()
        self.taking = True
        """Records of it may still be started."""
        self.ours = True
        """What it leads to may still be published."""
        self.in_progress = 0
        """Records started and not yet done."""


class Failure(NamedTuple):
    reason: Reason
    error: Exception


class Work:
    __slots__ = (
        "again", "attempts", "awaited", "begun", "counted", "delivery", "effect", "emitted", "envelope", "event", "excused", "failure",
        "held", "joined", "journal", "lane", "looked", "lost", "membership", "move", "offset", "outcome", "outputs", "over", "ownership",
        "processing", "recorded", "row", "sendings", "served", "settled", "step",
    )  # fmt: skip

    def __init__(self, delivery: Delivery, ownership: Ownership, lane: object, offset: int | None = None, move: Move | None = None) -> None:
        self.delivery = delivery
        """As it lay where it was first read, also when it comes from a retry topic."""
        self.ownership = ownership
        self.lane = lane
        self.offset = delivery.offset if offset is None else offset
        """Of what was fetched, in the partition that is owned."""
        self.move = move
        """What the retry topic added; None where it comes from its own topic."""
        # Known once it is admitted; the envelope stays None when the headers cannot be read.
        self.envelope: Envelope | None = None
        self.step = _UNKNOWN
        """A part of a join has none until it is known to be the last, or to fail it."""
        self.counted = _UNKNOWN
        """What no other delivery may be in work with at the same time: its step, or the part itself."""
        self.membership: Membership | None = None
        self.event: object = None
        """Of a join: a tuple, one event for each part in their declared order."""
        self.joined: Joined | None = None
        """What the step was joined of; None where it is a step of one event."""
        # What the ledger says, or is told.
        self.row: Row | None = None
        self.looked = 0.0
        """When the row was read, in seconds since the epoch; 0: it was not."""
        self.again = False
        """The row may have changed since it was read."""
        self.begun = UNWRITTEN
        """The attempt under which it may finish."""
        self.effect = Effect.NONE
        """What the attempts so far may have changed outside."""
        self.over = True
        """No attempt can be alive any more."""
        self.settled = False
        """What became of the step was known before: it is only told again."""
        self.recorded = False
        """A row answers for what it leads to, as for every step of its subscription: it may leave beside its journal record."""
        self.awaited = False
        """Later steps of its flow may wait until what it leads to has left, which its row has to say then."""
        self.lost = False
        """Another attempt answers for this step: nothing of this one may leave."""
        # Known once it was handled.
        self.processing: Processing | None = None
        self.attempts = 0 if move is None else move.attempt - 1
        """Told by the record, for steps whose rows do not count every attempt."""
        self.excused = 0 if move is None else move.excused
        """How many of these do not count, because an outage answers for them."""
        self.held: str | None = None
        """The subscription whose gate it waits at, and keeps its lane."""
        self.served: Served | None = None
        """What the step leads to without its handler."""
        self.emitted: Sequence[Event] = ()
        self.failure: Failure | None = None
        self.outcome: Outcome = "ok"
        # Known once it is concluded: what is to be written.
        self.journal: Record | None = None
        self.outputs: Sequence[Record] = ()
        self.sendings: Sequence[Sending] = ()

    def anew(self) -> Work:
        """The same delivery, as if it had just been fetched, but for what the ledger may say of it meanwhile."""
        work = Work(self.delivery, self.ownership, self.lane, self.offset, self.move)
        work.again = True
        return work

    def put_off(self, record: Record) -> None:
        """It leaves as this record, and nothing else of it."""
        self.settled = True
        self.failure, self.journal = None, None
        self.outputs, self.sendings = [record], [UNOBSERVED]
        self.outcome = "retry"

    def leaves_nothing(self) -> None:
        """There is nothing to be said of it: only its offset is committed."""
        self.settled = True

    @property
    def given(self) -> Sequence[Delivery]:
        """The records that led to the step, the one that came last at the end."""
        return (self.delivery,) if self.joined is None else self.joined.arrived

    @property
    def parents(self) -> tuple[EventId, ...]:
        """The events that led to the step, the one that came last first."""
        if self.joined is not None:
            return self.joined.parents
        assert self.envelope is not None
        return (self.envelope.event_id,)

    @property
    def detail(self) -> str | None:
        if self.failure is not None:
            return f"{self.failure.reason.value}: {self.failure.error}"
        return None if self.served is None else self.served.detail
