"""Acting on what was decided: the ledger, then the journal, then outputs, then done. Each stage takes everything that is ready.

With little traffic a lone record goes straight through; under load the groups grow while the stage before waits
for its acknowledgement, so batching comes from load and not from waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

from maypole.bus.hook import UNOBSERVED, Sending
from maypole.bus.ports import BrokerUnreachable, Cluster, Record, RecordTooLarge, Sink, Transport
from maypole.bus.record_sizes import bytes_of
from maypole.bus.work import Work

Conclude = Callable[[Sequence[Work]], None]
Settle = Callable[[Sequence[Work]], Awaitable[Sequence[Work]]]
Told = Callable[[Sequence[Work]], Awaitable[None]]
HandedOver = Callable[[Sequence[Work]], None]

_JOURNAL_PATIENCE_SECONDS: Final = 0.2
"""Longer than an acknowledgement takes under load."""
_MANY: Final = 64
"""Records; as many as take longer to make than a batch may take to fill."""


class Outlets(NamedTuple):
    """Where the records of one agent leave: a few at once, many by the bulk sink of their stage, so that no stage waits for another's."""

    few: Sink
    journal: Sink
    outputs: Sink
    observed: bool
    """Whether somebody wants to know where an output lies, which a bulk sink does not tell."""
    cluster: Cluster
    """Asked for a topic's limit when a record of ours is beyond it."""


@asynccontextmanager
async def open_outlets(transport: Transport, sink: Sink, *, observed: bool) -> AsyncIterator[Outlets]:
    async with transport.sink(bulk=True) as journal, transport.sink(bulk=True) as outputs:
        yield Outlets(sink, journal, outputs, observed, transport.cluster)


class Publisher:
    """Three stages in order of arrival: what finishes first is recorded, journaled and published first."""

    def __init__(self, outlets: Outlets, conclude: Conclude, settle: Settle, told: Told, done: HandedOver, taken_back: HandedOver) -> None:
        """`taken_back` gets those that another attempt answers for, and what comes behind one of these in its lane."""
        self._outlets = outlets
        self._conclude = conclude
        self._settle = settle
        self._told = told
        self._done = done
        self._taken_back = taken_back
        self._barred: set[object] = set()
        """Lanes of which nothing leaves: a step of theirs begins again, and what was handled behind it must not overtake it."""
        self._passing: list[asyncio.Future[None]] = []
        self._finished: list[Work] = []
        self._arrived = asyncio.Event()
        self._settled: asyncio.Queue[Sequence[Work]] = asyncio.Queue()
        self._taken = asyncio.Event()
        self._journaled: asyncio.Queue[Sequence[Work]] = asyncio.Queue(1)

    def finished(self, work: Work) -> None:
        """A step has come to its end; what it leads to is written from here on."""
        self._finished.append(work)
        self._arrived.set()

    async def record(self) -> None:
        """First stage, until cancelled: what has a row is in the ledger before anything of it leaves the process."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            group, self._finished = self._finished, []
            passing, self._passing = self._passing, []
            ours = [work for work in group if work.ownership.ours]
            self._conclude(ours)
            left = await self._settle(ours)
            if len(left) != len(ours) or self._barred:
                group = self._kept_in_order(group)
            for each in passing:
                if not each.done():
                    each.set_result(None)
            self._settled.put_nowait(group)
            if self._settled.qsize() > 1:
                await self._wait_taken()

    def _kept_in_order(self, group: Sequence[Work]) -> list[Work]:
        """Without the steps that another attempt answers for, and without what follows one in its lane. That is recorded all
        the same: nobody has to do it again, and when its turn comes it is told from its row.
        """
        back = []
        leave = []
        for work in group:
            if work.ownership.ours and (work.lost or work.lane in self._barred):
                self._barred.add(work.lane)
                back.append(work)
            else:
                leave.append(work)
        if back:
            self._taken_back(back)
        return leave

    async def unbar(self, lane: object) -> None:
        """What is handled of the lane from now on leaves again; once all that was handled before has been taken back."""
        await self._passed()
        self._barred.discard(lane)

    async def in_turn(self, lane: object) -> bool:
        """Once all that was handled before is recorded; False where a step of the lane that came before has to begin again."""
        await self._passed()
        return lane not in self._barred

    async def _passed(self) -> None:
        passing = asyncio.get_running_loop().create_future()
        self._passing.append(passing)
        self._arrived.set()
        await passing

    async def _wait_taken(self) -> None:
        """Groups grow while the journal is busy. One that is away holds up no recording: what is not on the disk would be done again."""
        self._taken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_JOURNAL_PATIENCE_SECONDS):
                await self._taken.wait()

    async def journal(self) -> None:
        """Second stage, until cancelled. What a row answers for may leave beside its journal record; all else waits for it."""
        while True:
            group = await self._settled.get()
            self._taken.set()
            ours = [work for work in group if work.ownership.ours]
            records = [work.journal for work in ours if work.journal is not None]
            beside = [work for work in ours if work.recorded and work.failure is None]
            if beside:
                outputs = [record for work in beside for record in work.outputs]
                sendings = [sending for work in beside for sending in work.sendings]
                await self._publish(self._outlets.journal, records + outputs, [UNOBSERVED] * len(records) + sendings, ours)
            elif records:
                await self._publish(self._outlets.journal, records, (), ours)
            await self._journaled.put(group)

    async def emit(self) -> None:
        """Third stage, until cancelled."""
        while True:
            group = await self._journaled.get()
            records: list[Record] = []
            sendings: list[Sending] = []
            awaited = [work for work in group if work.awaited]
            for work in group:
                if work.ownership.ours and not (work.recorded and work.failure is None):
                    records += work.outputs
                    sendings += work.sendings
            if records:
                await self._publish(self._outlets.outputs, records, sendings, group)
            # Of a partition that was taken away perhaps nothing has left; whoever has it now will tell it.
            if awaited and (told := [work for work in awaited if work.ownership.ours]):
                await self._told(told)
            self._done(group)

    async def _publish(self, bulk: Sink, records: Sequence[Record], sendings: Sequence[Sending], works: Sequence[Work]) -> None:
        observed = self._outlets.observed
        sink = bulk if len(records) >= _MANY and not (observed and sendings) else self._outlets.few
        try:
            receipts = await sink.publish(records)
        except BaseException as error:
            # A cancelled publish may still be written: its record then names a span that should exist.
            for sending in sendings:
                sending.failed(str(error) or type(error).__name__)
            if isinstance(error, RecordTooLarge):
                raise await self._explained(error, works) from error
            raise
        if observed and sendings:
            for sending, receipt in zip(sendings, receipts, strict=True):
                sending.acknowledged(receipt)

    async def _explained(self, error: RecordTooLarge, works: Sequence[Work]) -> RecordTooLarge:
        """Its topic takes less than when the agent started, or when the step was recorded: only a person can change that."""
        record, topic = error.record, error.topic
        step = next((work.step for work in works if any(each is record for each in (work.journal, *work.outputs))), None)
        limit = None
        with suppress(BrokerUnreachable):
            limit = (await self._outlets.cluster.topic_config(topic)).get("max.message.bytes")
        size = bytes_of(record)
        return RecordTooLarge(
            record,
            f"{error.reason}: step {step} has written down one of about {size} bytes, and the topic takes {limit or 'fewer'} now "
            f"(max.message.bytes). Let it take as much as before, then start the agent again, which does nothing twice: "
            f"kafka-configs.sh --alter --topic {topic} --add-config max.message.bytes={size}",
        )
