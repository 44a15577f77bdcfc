"""Acting on what was decided: journal, then outputs, then done. Each stage takes everything that is ready at once.

With little traffic a lone record goes straight through; under load the groups grow while the stage before waits
for its acknowledgement, so batching comes from load and not from waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from maypole.bus.hook import Sending
from maypole.bus.ports import Record, Sink
from maypole.bus.work import Work


class Publisher:
    """Two stages in order of arrival: what finishes first is journaled first and published first."""

    def __init__(self, sink: Sink, conclude: Callable[[Sequence[Work]], None], done: Callable[[Sequence[Work]], None]) -> None:
        self._sink = sink
        self._conclude = conclude
        self._done = done
        self._finished: list[Work] = []
        self._arrived = asyncio.Event()
        self._journaled: asyncio.Queue[list[Work]] = asyncio.Queue(1)

    def finished(self, work: Work) -> None:
        """A step has come to its end; what it leads to is written from here on."""
        self._finished.append(work)
        self._arrived.set()

    async def journal(self) -> None:
        """First stage, until cancelled. A step's record is acknowledged before its outputs leave: it has no row to answer for it."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            group, self._finished = self._finished, []
            ours = [work for work in group if work.ownership.ours]
            self._conclude(ours)
            records = [work.journal for work in ours if work.journal is not None]
            if records:
                await self._sink.publish(records)
            await self._journaled.put(group)

    async def emit(self) -> None:
        """Second stage, until cancelled."""
        while True:
            group = await self._journaled.get()
            records: list[Record] = []
            sendings: list[Sending] = []
            for work in group:
                if work.ownership.ours:
                    records += work.outputs
                    sendings += work.sendings
            if records:
                await self._publish(records, sendings)
            self._done(group)

    async def _publish(self, records: Sequence[Record], sendings: Sequence[Sending]) -> None:
        try:
            receipts = await self._sink.publish(records)
        except BaseException as error:
            # A cancelled publish may still be written: its record then names a span that should exist.
            for sending in sendings:
                sending.failed(str(error) or type(error).__name__)
            raise
        for sending, receipt in zip(sendings, receipts, strict=True):
            sending.acknowledged(receipt)
