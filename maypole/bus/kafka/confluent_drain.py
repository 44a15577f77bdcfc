"""A librdkafka producer for many records at a time, without a thread of its own."""

from __future__ import annotations

import asyncio
from typing import Final

import confluent_kafka as ck

from maypole.bus.kafka.confluent_reporter import warn
from maypole.bus.kafka.confluent_settings import ConfluentSettings
from maypole.bus.kafka.publication import Publication

_PAUSE_MIN: Final = 0.001
_PAUSE_MAX: Final = 0.05


class Drain:
    """Only what failed is reported; that all else was taken shows by the producer having nothing left. Belongs to the loop.

    A thread that waits for reports takes the interpreter from a busy loop for every one of them, and has to wait for it up to
    five milliseconds each time. So the loop looks for itself, as often as it comes by, and ever later while nothing is answered.
    """

    def __init__(self, settings: ConfluentSettings, batch_bytes_max: int) -> None:
        self.producer = settings.open(ck.Producer, {**settings.producer(batch_bytes_max, bulk=True), "error_cb": warn})
        self.batch_bytes_max = batch_bytes_max
        self._rounds: list[Publication] = []
        self._starved: list[asyncio.Future[None]] = []
        self._wanted = asyncio.Event()
        self.stopping = False
        self._abandoned = False
        self.ended = asyncio.ensure_future(self._run())

    async def room(self) -> None:
        """Wait until the producer's queue may have room again."""
        waiter = asyncio.get_running_loop().create_future()
        self._starved.append(waiter)
        self._wanted.set()
        await waiter

    def handed_over(self, publication: Publication, handed: int, left: list[int]) -> None:
        """A round of this publication is on its way."""
        publication.end_round(left)
        self._rounds.append(publication)
        self._wanted.set()

    def stop(self) -> None:
        self.stopping = True
        self._wanted.set()

    def abandon(self) -> None:
        self._abandoned = True
        self.stop()

    async def _run(self) -> None:
        pause = _PAUSE_MIN
        while not self._abandoned and (not self.stopping or len(self.producer)):
            if not (self._rounds or self._starved or self.stopping):
                self._wanted.clear()
                await self._wanted.wait()
                pause = _PAUSE_MIN
            answered = self._look()
            pause = _PAUSE_MIN if answered else min(2 * pause, _PAUSE_MAX)
            await asyncio.sleep(pause)
        if self._abandoned:
            self.producer.purge(blocking=False)
        self._look()

    def _look(self) -> bool:
        answered = bool(self.producer.poll(0))
        empty = not len(self.producer)
        if answered or empty:
            starved, self._starved = self._starved, []
            for waiter in starved:
                if not waiter.done():
                    waiter.set_result(None)
        if empty:
            rounds, self._rounds = self._rounds, []
            for publication in rounds:
                publication.complete()
        return answered
