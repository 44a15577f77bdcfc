"""The saga coordinator as a member of its group: it folds what it is given of the journal, keeps it, and then tells.

One round, always in this order: fold, write dead letters, keep (states and next offset in one transaction, under the epoch
of the takeover), then send commands, ends and deadlines. A coordinator that dies in between leaves nothing undone that the
next one does not find in what was kept, and nothing half kept; one that was superseded keeps nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from maypole.bus.bus import EnsureTopics
from maypole.bus.catalog import HEARTBEAT_SECONDS, Catalog
from maypole.bus.contracts import Contracts, announced_schemas
from maypole.bus.dead_letters import fitting
from maypole.bus.instance import instance_id
from maypole.bus.partition_counts import partition_counts
from maypole.bus.ports import BrokerUnreachable, Delivery, Sink, Source, TopicPartition, Transport
from maypole.bus.record_sizes import record_bytes_max
from maypole.schemas.commands import COMMANDS
from maypole.schemas.envelope import rfc3339
from maypole.schemas.topics import JOURNAL, LETTER_BYTES_MAX, PLATFORM, dead_letters
from maypole.services.coordinator.broker_clock import BrokerClock
from maypole.services.coordinator.due_times import DueTimes
from maypole.services.coordinator.folding import FAR_OFF_MS, Counts, Folding
from maypole.services.coordinator.messages import Messages
from maypole.services.coordinator.naming import COORDINATOR
from maypole.services.coordinator.reading import Bodies
from maypole.services.coordinator.sending import Sending
from maypole.services.coordinator.stores.patient import PatientStore
from maypole.services.coordinator.stores.port import Store, Superseded
from maypole.services.coordinator.width import THEN, JournalRepartitioned, lies_elsewhere
from maypole.services.saga.packing import VERSION

T = TypeVar("T")

log = logging.getLogger("maypole.services.coordinator")

PATIENCE_SECONDS_DEFAULT: Final = 600.0
UNSTARTED_SECONDS: Final = 600.0
"""How long a record waits for the start of its flow."""
_FORGOTTEN: Final = "none"
"""The version of no engine: a partition that is taken under it is emptied."""
BATCH_MAX: Final = 1000
UNSAVED_MAX: Final = 100_000
"""While more is waiting than one batch. Of a flow only the last state is written, and of many flows those that lie together at
once; whoever dies before that has folded for some seconds in vain."""
_TICK_SECONDS: Final = 0.5
_COMMIT_SECONDS: Final = 2.0
_FORGET_SECONDS: Final = 1.0
_FORGET_MAX: Final = 500
"""Some at a time, more often than flows can end, so that nothing is held up."""
_REJOIN_SECONDS: Final = 2.0
_LOOKED_AT_MAX: Final = 1000
_FAREWELL_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a coordinator runs in. `now` gives seconds since the epoch."""

    transport: Transport
    sink: Sink
    catalog: Catalog
    contracts: Contracts
    store: Store
    now: Callable[[], float]
    ensure: EnsureTopics
    instance: str = field(default_factory=instance_id)


class _Fetched(NamedTuple):
    """A batch, and what was ours when it was handed over."""

    records: Sequence[Delivery]
    mine: Mapping[int, tuple[Folding, Sending]]


class Coordinator:
    """Runs until `stop` is called. `Assignment` of its own source: partitions come and go while it works."""

    def __init__(self, surroundings: Surroundings, *, patience_seconds: float = PATIENCE_SECONDS_DEFAULT) -> None:
        """`patience_seconds`: how long a command may be without answer before the flow is stuck and a person has to look."""
        self._in = surroundings
        self._store = PatientStore(surroundings.store)
        self._patience_ms = int(patience_seconds * 1000)
        self._bodies = Bodies(surroundings.contracts)
        self._messages = Messages()
        self._clock = BrokerClock(surroundings.now)
        self._mine: dict[int, tuple[Folding, Sending]] = {}
        self._round = asyncio.Lock()
        """Held while a round is under way, so that who takes a partition over finds all of it kept."""
        self._saved: dict[TopicPartition, int] = {}
        self._unknown: set[str] = set()
        self._complained: set[str] = set()
        self._stopping = asyncio.Event()
        self._retention_ms: int | None = None
        self._letter_bytes_max = LETTER_BYTES_MAX
        self._width = self._width_found = 0
        """Partitions of the journal: when we began to run, and when we looked last."""
        self._joined = False
        self.ready = asyncio.Event()
        """Set once it has joined its group and has said so."""
        self.counts = Counts()

    def stop(self) -> None:
        """Begin to stop: what was read is kept and told first."""
        self._stopping.set()

    @property
    def partitions(self) -> Sequence[int]:
        return sorted(self._mine)

    async def run(self) -> None:
        around = self._in
        await around.ensure(PLATFORM)
        cluster = around.transport.cluster
        letters = dead_letters(COORDINATOR, (await record_bytes_max(cluster, [JOURNAL])).get(JOURNAL, 0))
        old = {letters.name} & (await cluster.topics()).keys()  # not every broker has heard yet of a topic that was just made
        limit = (await record_bytes_max(cluster, old)).get(letters.name, LETTER_BYTES_MAX) if old else letters.record_bytes_max
        self._letter_bytes_max = min(limit or LETTER_BYTES_MAX, LETTER_BYTES_MAX)
        await around.ensure([letters])
        await around.catalog.announce_schemas(announced_schemas(COMMANDS)[1])
        self._retention_ms = await self._retention()
        self._width = self._width_found = (await partition_counts(around.transport.cluster, [JOURNAL]))[JOURNAL]
        try:
            while not self._stopping.is_set():
                try:
                    async with around.transport.source(COORDINATOR, [JOURNAL], self, batch_max=BATCH_MAX) as source:
                        await self._work(source)
                except Superseded as error:
                    # The group still counts the partition as ours, or will tell us otherwise: joining anew settles it.
                    log.error("coordinator.superseded", extra={"partition": error.partition, "then": "it joins its group anew"})
                    self._mine.clear()
                    await self._unless_stopped(asyncio.sleep(_REJOIN_SECONDS))
        except Exception as error:
            log.error("coordinator.failed", extra={"error": f"{type(error).__name__}: {error}"})
            raise
        finally:
            await self._say_farewell()
        log.info("coordinator.stopped", extra={"instance": around.instance, **self.counts.facts()})

    # Assignment: called by the transport, in order with the batches of `fetch`.

    async def assigned(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        starts: dict[TopicPartition, int] = {}
        self._see_width(await self._answered(self._in.transport.cluster.topics))
        for at in partitions:
            taken = await self._store.take(at.partition, VERSION)
            oldest, end = await self._watermarks(at)
            if taken.next_offset > end:
                # Another journal lies under this name now: what was folded of the one before says nothing about it.
                log.error(
                    "coordinator.journal_replaced",
                    extra={"partition": at.partition, "expected_end": taken.next_offset, "end": end, "then": "it is folded anew"},
                )
                await self._store.take(at.partition, _FORGOTTEN)
                taken = await self._store.take(at.partition, VERSION)
            if taken.next_offset == 0:
                taken = taken._replace(next_offset=oldest)  # what is older is expired for everybody, and was never ours
            # With nothing left of it there is nothing to catch up with, whatever was folded last.
            folding = Folding(
                at.partition, taken, end if end > oldest else 0, self._store, self._bodies, self._in.catalog.view.choreographies,
                self._ask_for, self.counts, DueTimes(self._patience_ms, self._in.catalog.view.attempt_seconds),
            )  # fmt: skip
            await folding.restore()
            await self._complain_of_flows_elsewhere(at.partition)
            sending = Sending(
                folding, self._in.sink, self._in.transport.cluster, self._in.ensure, self._messages, self._clock, self.counts,
                self._complained, self._width,
            )  # fmt: skip
            self._mine[at.partition] = folding, sending
            starts[at] = taken.next_offset
            place = {"partition": at.partition, "epoch": taken.epoch, "offset": taken.next_offset}
            log.info("coordinator.partition_taken", extra={**place, "behind": max(0, end - taken.next_offset)})
        self._joined = True
        return starts

    async def revoked(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        async with self._round:
            self.lost(partitions)
            return {at: self._saved.pop(at) for at in partitions if at in self._saved}

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        for at in partitions:
            self._mine.pop(at.partition, None)

    async def _work(self, source: Source) -> None:
        loop = asyncio.get_running_loop()
        committed = forgotten = beaten = -1e9
        fetching: asyncio.Task[_Fetched] | None = None
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while True:
                if fetching is None:
                    fetching = asyncio.create_task(self._fetched(source))
                await asyncio.wait({fetching, stopping}, timeout=self._pause(loop.time()), return_when=asyncio.FIRST_COMPLETED)
                if self._width_found != self._width:
                    raise JournalRepartitioned(self._width, self._width_found)
                fetched = _Fetched((), {})
                if fetching.done():
                    fetched, fetching = fetching.result(), None
                async with self._round:
                    await self._go_round(fetched, loop.time())
                now = loop.time()
                if now - beaten >= HEARTBEAT_SECONDS and self._joined:
                    beaten = now
                    await self._beat()
                    self.ready.set()
                if now - committed >= _COMMIT_SECONDS and self._saved:
                    committed = now
                    await source.commit(dict(self._saved))
                if now - forgotten >= _FORGET_SECONDS:
                    forgotten = now
                    await self._forget()
                if self._stopping.is_set():
                    return
        finally:
            stopping.cancel()
            if fetching is not None:
                fetching.cancel()
                await asyncio.gather(fetching, return_exceptions=True)

    def _pause(self, now: float) -> float:
        """Seconds until something is to be sent that no record will tell of."""
        waits = [_TICK_SECONDS]
        for folding, sending in self._mine.values():
            if folding.has_changes or folding.fresh:
                return 0.0
            pause = sending.pause(now)
            waits += [] if pause is None else [pause]
        return min(waits)

    async def _fetched(self, source: Source) -> _Fetched:
        records = await source.fetch()
        return _Fetched(records, dict(self._mine))

    async def _go_round(self, fetched: _Fetched, now: float) -> None:
        by_partition: dict[int, list[Delivery]] = {}
        for record in fetched.records:
            by_partition.setdefault(record.partition, []).append(record)
        for partition, some in by_partition.items():
            pair = self._mine.get(partition)
            # What was read under an earlier assignment must not be folded under this one: there may be a gap between them.
            if pair is not None and fetched.mine.get(partition) is pair:
                await self._fold(pair[0], some)
        more_is_there = len(fetched.records) >= BATCH_MAX
        for partition, (folding, sending) in list(self._mine.items()):
            try:
                # While much is waiting it is kept less often: of a flow only the last state has to be.
                if not more_is_there or folding.fresh or folding.unsaved >= UNSAVED_MAX:
                    await self._keep(folding)
                    await sending.tell(now)
                    await sending.fire()
            except Superseded:
                if self._mine.get(partition, (None,))[0] is folding:
                    raise

    async def _fold(self, folding: Folding, records: Sequence[Delivery]) -> None:
        await folding.fold(records)
        if len(records) < BATCH_MAX and folding.is_news(records[-1]):
            self._clock.heard(records[-1].timestamp_ms)

    async def _keep(self, folding: Folding) -> None:
        await folding.release(self._clock.now_ms() - int(UNSTARTED_SECONDS * 1000))
        if folding.letters:
            # Before the offset moves: a crash writes a letter twice, and loses none.
            await self._in.sink.publish([fitting(letter, self._letter_bytes_max) for letter in folding.letters])
            folding.letters.clear()
        if folding.has_changes:
            await folding.save()
            self._saved[TopicPartition(JOURNAL, folding.partition)] = folding.next

    def _see_width(self, topics: Mapping[str, int]) -> None:
        """A journal that is not there is another matter: it is waited for."""
        self._width_found = topics.get(JOURNAL, self._width)

    async def _complain_of_flows_elsewhere(self, partition: int) -> None:
        """Of those that have not ended, as far as they show that the journal was widened while no coordinator was there."""
        flows = await self._store.due(partition, FAR_OFF_MS, _LOOKED_AT_MAX)
        moved = [flow for flow in flows if lies_elsewhere(flow, partition, self._width)]
        if moved:
            facts = {"partition": partition, "partitions": self._width, "flows": len(moved), "flow_id": moved[0], "then": THEN}
            log.error("coordinator.flows_elsewhere", extra=facts)

    async def _ask_for(self, choreography: str) -> None:
        """The view holds what was announced; the log is asked once more for each that is unknown."""
        if choreography not in self._unknown and await self._answered(lambda: self._in.catalog.choreography(choreography)) is None:
            self._unknown.add(choreography)

    async def _watermarks(self, at: TopicPartition) -> tuple[int, int]:
        return (await self._answered(lambda: self._in.transport.cluster.watermarks([at])))[at]

    async def _answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """While the broker is away everything waits for it."""
        while True:
            try:
                return await ask()
            except BrokerUnreachable:
                await asyncio.sleep(_TICK_SECONDS)

    async def _retention(self) -> int | None:
        """How long a flow that ended is remembered: as long as the journal can speak of it. None: for ever."""
        told = (await self._in.transport.cluster.topic_config(JOURNAL)).get("retention.ms")
        kept = int(told) if told is not None else next(topic.retention_ms for topic in PLATFORM if topic.name == JOURNAL)
        return None if kept < 0 else kept

    async def _forget(self) -> None:
        if self._retention_ms is None:
            return
        before_ms = self._clock.now_ms() - self._retention_ms
        for partition in self.partitions:
            await self._store.forget(partition, before_ms, _FORGET_MAX)

    async def _beat(self) -> None:
        try:
            self._see_width(await self._in.transport.cluster.topics())
        except BrokerUnreachable:
            pass  # it is asked with every heartbeat
        facts: dict[str, Any] = {
            "host": socket.gethostname(), "pid": os.getpid(), "partitions": self.partitions, **self.counts.facts(),
            "parked": sum(len(folding.parking) for folding, _ in self._mine.values()),
            "parked_flows": sum(folding.parking.pinned for folding, _ in self._mine.values()),
            "unanswered": sum(len(folding.resending) for folding, _ in self._mine.values()),
            "seen_at": rfc3339(self._in.now() * 1000),
        }  # fmt: skip
        await self._in.catalog.beat(COORDINATOR, self._in.instance, facts)

    async def _say_farewell(self) -> None:
        """Nobody who stops waits for a broker that may never come back."""
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._in.catalog.beat(COORDINATOR, self._in.instance, None)
        except (TimeoutError, ConnectionError):
            log.warning("coordinator.farewell_unheard", extra={"instance": self._in.instance})

    async def _unless_stopped(self, waiting: Awaitable[object]) -> None:
        tasks = {asyncio.ensure_future(waiting), asyncio.ensure_future(self._stopping.wait())}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
