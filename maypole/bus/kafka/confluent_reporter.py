"""A librdkafka producer and the thread that serves its delivery reports."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

import confluent_kafka as ck

from maypole.bus.kafka.confluent_settings import ConfluentSettings
from maypole.bus.kafka.publication import Publication

_log = logging.getLogger("maypole.bus.kafka")

_SLICE = 0.05


class Reporter:
    """The thread lives until `stop` and the last report, or until `abandon`; `ended` completes on the loop."""

    def __init__(self, settings: ConfluentSettings, batch_bytes_max: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.producer = settings.open(ck.Producer, {**settings.producer(batch_bytes_max, bulk=False), "error_cb": warn})
        self.batch_bytes_max = batch_bytes_max
        self._starved: Callable[[], object] | None = None
        self.stopping = False
        self._abandoned = False
        threading.Thread(target=self._run, name="maypole-delivery-reports", daemon=True).start()

    async def room(self) -> None:
        """Wait until the producer's queue may have room again."""
        waiter = self._loop.create_future()
        self._starved = lambda: self._loop.call_soon_threadsafe(_set, waiter)
        await waiter

    def handed_over(self, publication: Publication, handed: int, left: list[int]) -> None:
        """A round of this publication is on its way."""
        publication.end_round(left, handed)

    def stop(self) -> None:
        self.stopping = True

    def abandon(self) -> None:
        self.stopping = self._abandoned = True

    def _run(self) -> None:
        try:
            while not self._abandoned and (not self.stopping or len(self.producer)):
                served = self.producer.poll(_SLICE)
                starved = self._starved
                if starved is not None and (served or not len(self.producer)):
                    self._starved = None
                    starved()
            if self._abandoned:
                self.producer.purge(blocking=False)
                self.producer.poll(0)
            self._loop.call_soon_threadsafe(_set, self.ended)
        except RuntimeError:
            # The loop was closed before its sinks were.
            _log.warning("bus.producer_orphaned records=%s", len(self.producer))


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def warn(error: ck.KafkaError) -> None:
    _log.debug("bus.client_warned client=producer code=%s error=%s", error.name(), error.str())
