"""One partition of the journal as its coordinator folds it: what is known of its flows, and what has changed since it was kept.

Decides nothing and sends nothing: `fold` takes records in, `save` keeps what came of them, and what has to be told lies in
`letters`, `fresh` and `resending` for whoever sends. Flows that have not been heard of lately are in the store only.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import attrgetter
from typing import Final

from maypole.bus.choreography import Choreography
from maypole.bus.dead_letters import Reason, dead_letter
from maypole.bus.ports import Delivery, Record
from maypole.schemas.event import Event
from maypole.schemas.identifiers import FlowId, StepId
from maypole.schemas.journal import FlowEnded, FlowStarted, StepAbandoned, StepCompleted, StepFailed, StepStarted
from maypole.services.coordinator.due_times import DueTimes
from maypole.services.coordinator.naming import COORDINATOR
from maypole.services.coordinator.parking import Parking
from maypole.services.coordinator.reading import UNREADABLE, Bodies, Head, read_head
from maypole.services.coordinator.reasons import described
from maypole.services.coordinator.resending import Resending
from maypole.services.coordinator.stores.port import Changes, Row, Store, Taken
from maypole.services.coordinator.traces import with_step
from maypole.services.saga import Alarm, Command, Deadline, Saga, State, UnknownPin, step, unsettled
from maypole.services.saga.packing import pack, unpack

log = logging.getLogger("maypole.services.coordinator")

KNOWN_MAX: Final = 100_000
"""Flows in memory. One beyond that costs a look into the store when it is heard of again.

A flow half-way through four steps takes about 1.8 KB, for which the process takes 2.0 KB from the system; it grows with its steps.
"""

FAR_OFF_MS: Final = 1 << 62
"""Later than anything that will ever be fired."""

_TELLS_A_PLACE: Final = (StepStarted, StepCompleted, StepFailed, StepAbandoned)


class Known:
    """One flow in memory. `told` is the end that was told last, empty for none.

    `asked_late`: what it asks for was worked out from what lay there at the takeover, so perhaps nobody has asked for it yet.
    `is_changed`: it is not kept as it is here.
    """

    __slots__ = ("asked_late", "ended_ms", "first_offset", "is_changed", "saga", "subject", "told", "traces")

    def __init__(
        self, saga: Saga, first_offset: int, traces: bytes = b"", subject: str | None = None, told: str = "", ended_ms: int | None = None
    ) -> None:
        self.saga = saga
        self.first_offset = first_offset
        self.traces = traces
        self.subject = subject
        self.told = told
        self.ended_ms = ended_ms
        self.asked_late = False
        self.is_changed = False

    @property
    def has_untold_end(self) -> bool:
        state = self.saga.state
        return state.is_end and state.value != self.told

    @property
    def is_owed(self) -> bool:
        """Whether somebody has to be told something of it."""
        return bool(self.saga.asked) or self.has_untold_end


class _Written:
    """The rows of one `save`, each made when it is asked for: all of them at once would be half of what the flows themselves take."""

    def __init__(self, row: Callable[[Known], Row], changed: Iterable[Known], others: Sequence[Row]) -> None:
        self._row = row
        # As they lie in the store: a page that holds several of them is written once.
        self._changed = sorted(changed, key=attrgetter("first_offset"))
        self._others = others
        self.earliest_ms: int | None = None
        """Of the deadlines in the rows that were made."""

    def __iter__(self) -> Iterator[Row]:
        for row in chain(map(self._row, self._changed), self._others):
            if row.due_ms is not None and (self.earliest_ms is None or row.due_ms < self.earliest_ms):
                self.earliest_ms = row.due_ms
            yield row


class Counts:
    """Since the start, for heartbeats."""

    def __init__(self) -> None:
        self.folded = 0
        self.alarms = 0
        self.letters = 0
        self.commands = 0
        self.deadlines = 0
        self.ends = 0

    def facts(self) -> dict[str, int]:
        return dict(vars(self))


class Folding:
    def __init__(
        self,
        partition: int,
        taken: Taken,
        end: int,
        store: Store,
        bodies: Bodies,
        choreographies: Mapping[str, Choreography],
        ask_for: Callable[[str], Awaitable[object]],
        counts: Counts,
        due_times: DueTimes,
        known_max: int = KNOWN_MAX,
    ) -> None:
        """`end` is where the partition ended when it was taken: before that nothing is told. `ask_for` looks for a choreography."""
        self.partition = partition
        self.next = taken.next_offset
        self.unsaved = 0
        """Records folded since the last `save`."""
        self.letters: list[Record] = []
        """Dead letters, to be acknowledged before the offset moves."""
        self.fresh: list[Command] = []
        """What was told by records since the last round, in a partition that is read to its end."""
        self.resending = Resending()
        self.parking = Parking()
        self.next_due: int | None = None
        """No later than the earliest deadline that is kept."""
        self._epoch = taken.epoch
        self._end = end
        self.store = store
        self._bodies = bodies
        self._choreographies = choreographies
        self._ask_for = ask_for
        self._counts = counts
        self._due_times = due_times
        self.asked_from = self._due_times.asked_from
        self._known_max = known_max
        self._known: dict[FlowId, Known] = {}
        self._changed: list[Known] = []
        self._put_off: dict[FlowId, Row] = {}
        """Rows of flows that cannot be read now, with a later time, to be written with the next `save`."""

    @property
    def is_live(self) -> bool:
        """Whether everything has been folded that was there when the partition was taken."""
        return self.next >= self._end

    def is_news(self, record: Delivery) -> bool:
        """Whether it was appended since the partition was taken: what lay there before may be of any age, the last of it too."""
        return record.offset >= self._end

    @property
    def has_changes(self) -> bool:
        return bool(self.unsaved or self._changed or self._put_off or self.parking.has_changes)

    async def restore(self) -> None:
        """What the one before left to be done."""
        for flow in await self.store.pending(self.partition):
            self.resending.put(flow, 0.0)
        self.parking.restore(await self.store.parked(self.partition))
        self.next_due = await self.store.next_due(self.partition)

    async def fold(self, records: Sequence[Delivery]) -> None:
        """In the order of the journal."""
        heads: list[tuple[Head, Delivery]] = []
        for record in records:
            if record.offset < self.next:
                continue  # folded before: the group's offset is only for onlookers
            self.next = record.offset + 1
            self.unsaved += 1
            try:
                heads.append((read_head(record), record))
            except UNREADABLE as error:
                self._bury(record, Reason.UNDECODABLE, str(error))
        # Ends are our own words. While catching up they say what needs not be told again.
        heads = [(head, record) for head, record in heads if not (head.is_end and self.is_news(record))]
        await self._look_up({head.flow_id for head, _ in heads})
        for head, record in heads:
            try:
                body = await self._bodies.read(head, record)
            except UNREADABLE as error:
                self._bury(record, Reason.UNDECODABLE, str(error))
                continue
            await self._take(head, record, body)
        self._counts.folded += len(records)

    async def release(self, too_old_ms: int) -> None:
        """Let the parked flows go on whose choreography is known by now; give up those that nobody has started for so long."""
        for pin in self.parking.pins() & self._choreographies.keys():
            for flow in self.parking.waiting_for(pin):
                log.info("coordinator.flow_released", extra={"flow_id": flow, "choreography": pin})
                await self._unpark(flow)
        for flow in self.parking.given_up(too_old_ms):
            for record in await self._taken_out(flow):
                why = "its flow was never started: no FlowStarted came before it, nor within its time after it"
                self._bury(record, Reason.UNKNOWN_FLOW, why)

    async def opened(self, flows: Collection[FlowId]) -> Mapping[FlowId, Known]:
        """Those of these flows that can be read now; a parked one waits for its choreography."""
        await self._look_up(flows)
        return {flow: self._known[flow] for flow in flows if flow in self._known}

    def fires_at(self, known: Known) -> list[tuple[int, Deadline]]:
        """Its deadlines, each with the time at which it may fire, by the broker's clock."""
        return self._due_times.of(known.saga, never_asked=known.asked_late)

    def touch(self, flow: FlowId) -> None:
        """Something was told of it, or its deadlines are to be looked at anew: it is written with the next `save`."""
        self._write_later(self._known[flow])

    async def put_off(self, flows: Collection[FlowId], until_ms: int) -> None:
        """These cannot be read now: until then, or until they can be, their deadlines stand in nobody's way."""
        for flow, row in (await self.store.load(self.partition, flows)).items():
            self._put_off[flow] = row._replace(due_ms=until_ms)

    async def save(self) -> None:
        """Raises `Superseded`; and `StoreUnavailable`: then nothing is lost, and it can be called again."""
        written = _Written(self._row, self._changed, tuple(self._put_off.values()))
        parked, released = self.parking.changes()
        await self.store.save(self.partition, self._epoch, self.next, Changes(written, parked, released))
        self.parking.kept()
        if written.earliest_ms is not None and (self.next_due is None or written.earliest_ms < self.next_due):
            self.next_due = written.earliest_ms
        for known in self._changed:
            known.is_changed = False
            del self._known[known.saga.flow_id]
            if known.ended_ms is None or known.is_owed:
                self._known[known.saga.flow_id] = known  # heard of last
        self._changed.clear()
        self._put_off.clear()
        self.unsaved = 0
        # In one pass: a dict finds its first key by walking over all that were removed before it, for each key again.
        for flow in list(islice(self._known, max(0, len(self._known) - self._known_max))):
            del self._known[flow]

    async def look_for_next_due(self) -> None:
        self.next_due = await self.store.next_due(self.partition)

    def _row(self, known: Known) -> Row:
        saga = known.saga
        due_ms = min((at_ms for at_ms, _ in self.fires_at(known)), default=None)
        if due_ms is not None and due_ms > FAR_OFF_MS:
            due_ms = FAR_OFF_MS  # how long a join waits is said in a declaration, which is anybody's, and a store's integers have an end
        return Row(
            saga.flow_id, pack(saga), known.traces, known.subject, known.told, due_ms, known.ended_ms, known.is_owed, known.first_offset
        )

    async def _look_up(self, flows: Collection[FlowId]) -> None:
        for flow, row in (await self.store.load(self.partition, [flow for flow in flows if flow not in self._known])).items():
            try:
                saga = unpack(row.state, self._choreographies)
            except UnknownPin as error:
                await self._ask_for(error.choreography)
                try:
                    saga = unpack(row.state, self._choreographies)
                except UnknownPin:
                    self._park_flow(flow, error)
                    continue
            self._known[saga.flow_id] = Known(saga, row.first_offset, row.traces, row.subject, row.told, row.ended_ms)

    async def _take(self, head: Head, record: Delivery, body: Event) -> None:
        flow = head.flow_id
        known = self._known.get(flow)
        if self.parking.pin_of(flow):
            self.parking.put(flow, self.parking.pin_of(flow), record)
            return
        if isinstance(body, FlowStarted) and known is None:
            if body.choreography not in self._choreographies:
                await self._ask_for(body.choreography)
            if body.choreography not in self._choreographies:
                self._park_flow(flow, UnknownPin(flow, body.choreography))
                self.parking.put(flow, body.choreography, record)
                return
            known = self._known[flow] = Known(Saga(flow), record.offset)
            for earlier in await self._taken_out(flow):
                await self._take_again(earlier)
        elif known is None:
            if not head.is_end:
                self.parking.put(flow, "", record)
            return
        self._fold_one(known, head, record, body)

    async def _take_again(self, record: Delivery) -> None:
        head = read_head(record)
        await self._take(head, record, await self._bodies.read(head, record))

    def _fold_one(self, known: Known, head: Head, record: Delivery, body: Event) -> None:
        before = known.saga
        flow = before.flow_id  # and not this record's copy of it, which would be kept beside it
        after, told = step(before, body, record.timestamp_ms, self._choreographies)
        if known.subject is None and head.subject is not None:
            known.subject = head.subject.decode(errors="replace")
        if isinstance(body, _TELLS_A_PLACE):
            known.traces = with_step(known.traces, body.step_id, head.traceparent)
        elif isinstance(body, FlowEnded) and body.state == before.state.value:
            known.told = body.state
            self._write_later(known)
            return
        if after is before:
            return
        known.saga = after
        self._write_later(known)
        for each in told:
            if isinstance(each, Alarm):
                self._alarm(each, record)
            elif self.is_news(record):
                self.fresh.append(each)
            else:
                known.asked_late = True
        if after.phase is not before.phase or after.stuck != before.stuck or after.contradictions != before.contradictions:
            self._moved(known, before, record)
        if after.stuck and (not before.stuck or _waiting(after) - _waiting(before)):
            self._call_a_person(after, record)
        if after.asked and flow not in self.resending:
            self.resending.put(flow, 0.0)

    def _write_later(self, known: Known) -> None:
        if not known.is_changed:
            known.is_changed = True
            self._changed.append(known)

    def _moved(self, known: Known, before: Saga, record: Delivery) -> None:
        saga, state = known.saga, known.saga.state
        known.ended_ms = record.timestamp_ms if state.is_end else None
        if state.is_end:
            self.resending.put(saga.flow_id, 0.0)
        else:
            known.told = ""
        if state is State.REOPENED:
            log.error("coordinator.flow_reopened", extra={"flow_id": saga.flow_id, "was": before.state.value})

    def _call_a_person(self, saga: Saga, record: Delivery) -> None:
        """With all that keeps the flow from its end: whoever decides about one step has to see what follows."""
        steps = "; ".join(map(described, unsettled(saga)))
        what = f"the flow is stuck and waits for a person: {steps}"
        then = f"maypole saga show {saga.flow_id}, and decide"
        log.error("coordinator.flow_stuck", extra={"flow_id": saga.flow_id, "why": what, "then": then})
        self._bury(record, Reason.COMPENSATION_FAILED, what, is_loud=False)

    def _alarm(self, alarm: Alarm, record: Delivery) -> None:
        self._counts.alarms += 1
        log.error(
            "coordinator.contradiction",
            extra={
                "flow_id": alarm.flow_id, "step_id": alarm.step_id, "violation": alarm.violation.value, "detail": alarm.detail,
                "partition": record.partition, "offset": record.offset, "then": f"maypole saga show {alarm.flow_id}",
            },
        )  # fmt: skip

    def _park_flow(self, flow: FlowId, error: UnknownPin) -> None:
        if self.parking.pin_of(flow) == error.choreography:
            return  # it was said when it began to wait
        self._counts.alarms += 1
        then = "the flow waits until it is known"
        log.error("coordinator.choreography_unknown", extra={"flow_id": flow, "error": str(error), "then": then})
        self.parking.wait_for(flow, error.choreography)

    async def _unpark(self, flow: FlowId) -> None:
        records = await self._taken_out(flow)
        self._put_off.pop(flow, None)
        await self._look_up([flow])
        for record in records:
            await self._take_again(record)
        known = self._known.get(flow)
        if known is None:
            return
        self.touch(flow)  # its deadlines may have been put off
        if known.is_owed:
            self.resending.put(flow, 0.0)

    async def _taken_out(self, flow: FlowId) -> Sequence[Delivery]:
        """The records that were parked of this flow, in order; from now on it is parked no more."""
        if flow not in self.parking:
            return ()
        kept = await self.store.parked_records(self.partition, flow)
        return [*kept, *self.parking.take_out(flow)]

    def _bury(self, record: Delivery, reason: Reason, why: str, *, is_loud: bool = True) -> None:
        """Written again when the store is folded anew: of one record it is the same letter, byte for byte."""
        self._counts.letters += 1
        self.letters.append(dead_letter(COORDINATOR, record, reason, why, 1, record.timestamp_ms))
        if is_loud:
            position = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            log.error("coordinator.record_buried", extra={**position, "reason": reason.value, "error": why})


def _waiting(saga: Saga) -> set[StepId]:
    """The steps that need a person."""
    return {each.step_id for each in unsettled(saga) if each.waiting is not None}
