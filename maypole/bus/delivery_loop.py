"""The life of deliveries: a fixed pool of workers takes records, one flow in order, many flows side by side.

No task, timer or thread hop per record: workers are tasks that stay, one timer serves all deadlines,
and the source hands over whole batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final

from maypole.bus.blocked import watching_for_blocks
from maypole.bus.child_tasks import contain_child_tasks, handles
from maypole.bus.commits import commit_progress
from maypole.bus.dead_letters import Reason
from maypole.bus.deadlines import Deadlines
from maypole.bus.holding import Holding
from maypole.bus.moves import HeaderUnreadable, opened
from maypole.bus.pausing import WAITING_MAX, Pausing
from maypole.bus.ports import Delivery, Source, TopicPartition
from maypole.bus.publisher import Outlets, Publisher
from maypole.bus.repetitions import Repetitions
from maypole.bus.steps import Steps
from maypole.bus.work import Failure, Ownership, Work
from maypole.bus.worker import Worker
from maypole.schemas.identifiers import StepId

log = logging.getLogger("maypole.bus.delivery_loop")

RECORDS_IN_HAND_MAX: Final = 2000
BYTES_IN_HAND_MAX: Final = 32 * 1024 * 1024
"""Of values, as they came."""
REVOKE_GRACE_SECONDS: Final = 5.0
_RECORDS_BEFORE_YIELD: Final = 100
_LOOK_AT_CLOCK_SECONDS: Final = 60.0
"""A clock that is set forward while something is held is noticed so soon."""


class DeliveryLoop:
    """Everything between the source's `fetch` and its `commit`. Also what the source tells of rebalances.

    At most `RECORDS_IN_HAND_MAX` records or `BYTES_IN_HAND_MAX` bytes are in hand, and a batch more; then nothing is fetched
    until some are done.
    """

    def __init__(
        self,
        agent: str,
        steps: Steps,
        outlets: Outlets,
        concurrency: int,
        grace_seconds: float = REVOKE_GRACE_SECONDS,
        *,
        delays: Mapping[str, float] = MappingProxyType({}),
        now: Callable[[], float] = time.time,
    ) -> None:
        """`delays`: the agent's retry topics, each with its delay in seconds; `now` gives seconds since the epoch."""
        self._agent = agent
        self._delays = delays
        self._holding = Holding(delays, now)
        self._held = asyncio.Event()
        self._steps = steps
        self._concurrency = concurrency
        self._grace_seconds = grace_seconds
        self._publisher = Publisher(outlets, steps.conclude, steps.settle, steps.told, self._done, self._taken_back)
        steps.in_turn = self._publisher.in_turn
        self._owned: dict[TopicPartition, Ownership] = {}
        self._lanes: dict[object, deque[Work] | None] = {}
        """What waits behind the record in work of each lane; most lanes hold one record, so most need no queue."""
        self._beginning_again: dict[object, list[Work]] = {}
        """By lane: the step that another attempt answered for, and behind it what had been handled after it."""
        self._ready: deque[Work] = deque()
        self._repetitions = Repetitions()
        self._pausing = Pausing(self._owned, self._lanes, self._go_on)
        self._guarding = steps.guarding
        self._workers: list[Worker] = []
        self._in_hand = 0
        self._bytes_in_hand = 0
        self._idle: deque[asyncio.Future[None]] = deque()
        self._progress = asyncio.Event()
        self._committable = asyncio.Event()
        self._assigned = asyncio.Event()
        self.handled = 0
        """Deliveries brought to their end since the start."""

    # -- the source's side: rebalances -------------------------------------------------------------------------

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        for at in partitions:
            self._owned[at] = Ownership(at)
        self._pausing.assigned(partitions)
        await self._steps.assigned(partitions)
        log.info("partitions.assigned", extra={"agent": self._agent, "partitions": sorted(partitions)})
        self._assigned.set()

    async def revoked(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Stop taking, finish within the grace, then cancel the rest and hand over how far it got."""
        leaving = [self._owned.pop(at) for at in partitions if at in self._owned]
        for ownership in leaving:
            ownership.taking = False
        self._pausing.left()
        try:
            async with asyncio.timeout(self._grace_seconds):
                while self._workers and any(ownership.in_progress for ownership in leaving):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            log.warning(
                "partitions.revoked_unfinished",
                extra={"agent": self._agent, "partitions": sorted(partitions), "records": sum(o.in_progress for o in leaving)},
            )
        self._holding.drop(partitions)
        self._abandon(leaving)
        log.info("partitions.revoked", extra={"agent": self._agent, "partitions": sorted(partitions)})
        return {ownership.at: ownership.watermark.position for ownership in leaving if ownership.watermark.position is not None}

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        leaving = [self._owned.pop(at) for at in partitions if at in self._owned]
        self._holding.drop(partitions)
        log.warning("partitions.lost", extra={"agent": self._agent, "partitions": sorted(partitions)})
        self._abandon(leaving)

    def _abandon(self, leaving: Sequence[Ownership]) -> None:
        """Nothing of these is published or committed from here on."""
        for ownership in leaving:
            ownership.taking = ownership.ours = False
        self._pausing.left()
        for worker in self._workers:
            if worker.work is not None and worker.work.ownership in leaving:
                worker.cut_off()

    async def wait_assigned(self) -> None:
        """Until the group has given this member its share, which may be nothing."""
        await self._assigned.wait()

    # -- taking records -----------------------------------------------------------------------------------------

    async def run(self, source: Source) -> None:
        """Until cancelled. An exception that leaves this is a bug or a broker that refuses; nothing of it is committed."""
        self._pausing.source = source
        async with self._watched() as deadlines, asyncio.TaskGroup() as group:
            for number in range(self._concurrency):
                worker = Worker(deadlines)
                self._workers.append(worker)
                worker.task = group.create_task(self._serve(worker), name=f"{self._agent} worker {number}")
            group.create_task(self._publisher.record(), name=f"{self._agent} record")
            group.create_task(self._publisher.journal(), name=f"{self._agent} journal")
            group.create_task(self._publisher.emit(), name=f"{self._agent} emit")
            group.create_task(commit_progress(source, self._owned, self._committable, self._progress.set), name=f"{self._agent} commit")
            group.create_task(self._steps.forget(), name=f"{self._agent} retention")
            group.create_task(self._steps.watch(), name=f"{self._agent} joins")
            group.create_task(self._guarding.watch(self._pausing), name=f"{self._agent} breakers")
            self._intake = [
                group.create_task(self._take(source), name=f"{self._agent} intake"),
                group.create_task(self._take_held(source), name=f"{self._agent} held"),
            ]

    async def drain(self, deadline_seconds: float) -> bool:
        """Fetch no more and finish what was fetched, but for what waits; False when the deadline came first."""
        for task in self._intake:
            task.cancel()
        try:
            async with asyncio.timeout(deadline_seconds):
                while self._in_hand > self._pausing.waiting or any(ownership.watermark.uncommitted for ownership in self._owned.values()):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            log.warning("drain.deadline_passed", extra={"agent": self._agent, "records": self._in_hand})
            return False
        return True

    async def _take(self, source: Source) -> None:
        while True:
            batch, early = self._holding.sift(await source.fetch())
            if early:
                source.pause(early)
                self._held.set()
            await self._accept(batch)
            # Not fetching is what holds the source back: it pauses its partitions when its owner stays away.
            await self._wait_room()

    async def _take_held(self, source: Source) -> None:
        """What was fetched before its time, when that comes."""
        while True:
            seconds = self._holding.seconds_left()
            self._held.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if seconds is None else min(seconds, _LOOK_AT_CLOCK_SECONDS)):
                    await self._held.wait()
            await self._wait_room()
            batch, empty = self._holding.release()
            await self._accept(batch)
            # Only now: what comes behind them must find them in their lanes.
            owned = [at for at in empty if at in self._owned]
            if owned:
                source.resume(owned)

    async def _accept(self, batch: Sequence[Delivery]) -> None:
        works = self._received(batch)
        self._steps.admit(works)
        self._repetitions.count(works)
        try:
            await self._steps.look(works)
        except asyncio.CancelledError:
            # Nobody will work on them, so nobody may wait for them; they are not done, so they are not committed.
            self._left(works)
            raise
        self._line_up(works)
        self._wake_workers()

    async def _wait_room(self) -> None:
        while self._in_hand >= RECORDS_IN_HAND_MAX + min(self._pausing.waiting, WAITING_MAX) or self._bytes_in_hand >= BYTES_IN_HAND_MAX:
            self._progress.clear()
            await self._progress.wait()

    def _received(self, batch: Sequence[Delivery]) -> list[Work]:
        """Those of partitions that were taken away while the batch was on its way are left out: they are their next owner's."""
        owned = self._owned
        works: list[Work] = []
        for delivery in batch:
            ownership = owned.get(delivery[:2])  # type: ignore[call-overload]  # a tuple is what a TopicPartition is equal to
            if ownership is not None:
                ownership.watermark.taken(delivery.offset)
                # A record without a key belongs to no order; it gets a lane of its own.
                lane = delivery[:3] if delivery.key is None else delivery.key
                works.append(
                    Work(delivery, ownership, lane) if delivery.topic not in self._delays else self._retried(delivery, ownership, lane)
                )
        self._in_hand += len(works)
        self._bytes_in_hand += _bytes(works)
        return works

    def _retried(self, delivery: Delivery, ownership: Ownership, lane: object) -> Work:
        try:
            original, move = opened(self._agent, delivery)
        except HeaderUnreadable as error:
            work = Work(delivery, ownership, lane)
            work.failure = Failure(Reason.UNDECODABLE, error)
            return work
        return Work(original, ownership, lane, delivery.offset, move)

    def _line_up(self, works: Sequence[Work]) -> None:
        """Each in its lane, behind what is there."""
        lanes, ready = self._lanes, self._ready
        for work in works:
            lane = work.lane
            if lane not in lanes:
                lanes[lane] = None
                ready.append(work)
                continue
            waiting = lanes[lane]
            if waiting is None:
                lanes[lane] = waiting = deque()
            waiting.append(work)

    def _release(self, work: Work) -> None:
        if work.counted:
            self._steps.left(work.step)
            self._repetitions.release(work)

    def _taken_back(self, works: Sequence[Work]) -> None:
        """The first of each lane is one that another attempt answers for: ask what became of it, or wait until somebody can tell.

        It goes before all that is not begun of its lane. What is handled after it meanwhile is taken back as well.
        """
        for work in works:
            if work.lost:
                self._say_refused(work)
            if work.processing is not None:
                work.processing.ended(work.outcome if work.recorded else "revoked", work.attempts, work.detail)
            if work.recorded:
                # Its row has their spans, and they leave from there.
                for sending in work.sendings:
                    sending.failed("told again, behind what comes before it in its flow")
        for fresh in self._anew(works):
            again = self._beginning_again.get(fresh.lane)
            if again is None:
                self._beginning_again[fresh.lane] = [fresh]
                self._line_up_first(fresh)
            else:
                again.append(fresh)
        self._wake_workers()

    def _cut_off(self, work: Work) -> None:
        """A command has ended this attempt: the step's row tells what became of it. The next in its lane, but for what begins again."""
        self._say_refused(work)
        (fresh,) = self._anew([work])
        waiting = self._lanes[work.lane]
        if work.lane in self._beginning_again and waiting:
            waiting.insert(1, fresh)
        else:
            self._line_up_first(fresh)

    def _say_refused(self, work: Work) -> None:
        log.warning("step.attempt_refused", extra={**self._steps.about(work), "why": "its row is no longer for this attempt to end"})

    def _anew(self, works: Sequence[Work]) -> Sequence[Work]:
        for work in works:
            work.ownership.in_progress -= 1
            self._release(work)
        fresh = [work.anew() for work in works]
        self._steps.admit(fresh)
        self._repetitions.count(fresh)
        return fresh

    def _line_up_first(self, work: Work) -> None:
        """Before all that waits in its lane, and behind what is in work."""
        lanes, lane = self._lanes, work.lane
        if lane not in lanes:
            lanes[lane] = None
            self._ready.append(work)
            return
        waiting = lanes[lane]
        if waiting is None:
            lanes[lane] = waiting = deque()
        waiting.appendleft(work)

    async def _followed(self, work: Work) -> None:
        """Where this is what begins again in its lane: nothing of that is in work, and what had been handled after it follows it."""
        lane = work.lane
        if self._beginning_again.get(lane, [None])[0] is not work:
            return
        await self._publisher.unbar(lane)
        _, *behind = self._beginning_again.pop(lane)
        for each in reversed(behind):
            self._line_up_first(each)

    async def halt(self, step: StepId) -> Work | None:
        """Cut off what works on the step here, and wait a while until it is over; None: nothing does.

        The delivery then ends with what the step's row says.
        """
        worker = next((each for each in self._workers if each.work is not None and each.work.step == step), None)
        if worker is None or worker.work is None or worker.halting is not None:
            return None
        work = worker.work
        worker.halting = halting = asyncio.get_running_loop().create_future()
        worker.cut_off()
        await asyncio.wait({halting}, timeout=self._grace_seconds)
        if not halting.done():
            work.over = False  # it does not let itself be cancelled
        return work

    def _wake_workers(self) -> None:
        """As many as there is work for: waking the whole pool for a lone record would cost more than the record."""
        for _ in range(min(len(self._ready), len(self._idle))):
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)

    # -- working ------------------------------------------------------------------------------------------------

    async def _serve(self, worker: Worker) -> None:
        handles.set(True)
        ready = self._ready
        run, finished = self._steps.run, self._publisher.finished
        repetitions, guarding = self._repetitions, self._guarding
        loop = asyncio.get_running_loop()
        served = 0
        while True:
            while not ready:
                idle = loop.create_future()
                self._idle.append(idle)
                await idle
            work = ready.popleft()
            if work.again:
                await self._followed(work)
                if work.counted:  # what nobody can read is no step's delivery
                    await repetitions.take_up_alone(work)
            elif work.counted:
                repetitions.take_up(work)
            ownership = work.ownership
            if not ownership.taking:
                self._left([work])
                self._release(work)
            else:
                ownership.in_progress += 1
                worker.work = work
                try:
                    await run(work, worker)
                    if work.held is None:
                        finished(work)
                except asyncio.CancelledError:
                    self._cancelled(work, worker)
                finally:
                    worker.work = None
                    worker.halted()
                if not ownership.ours:
                    await self._steps.let_go(work)
            if work.held is not None:
                self._hold(work, work.held)
            else:
                if guarding.troubled:
                    guarding.over(work)
                waiting = self._lanes[work.lane]
                if waiting:
                    ready.append(waiting.popleft())
                else:
                    del self._lanes[work.lane]
            served += 1
            if served % _RECORDS_BEFORE_YIELD == 0:
                # Handlers that never wait would keep the loop from acknowledgements and rebalances.
                await asyncio.sleep(0)

    def _hold(self, work: Work, subscription: str) -> None:
        """It is not in progress any more, so neither a rebalance nor the drain waits for it; nothing of its flow overtakes it."""
        work.ownership.in_progress -= 1
        self._repetitions.let_up(work)
        self._pausing.hold(subscription, work)
        self._progress.set()
        if not work.ownership.taking:
            self._pausing.left()
        self._guarding.over(work)
        self._guarding.look_soon()

    def _go_on(self, works: Sequence[Work]) -> None:
        for work in works:
            work.held = None
            # Another delivery of the step may have been in work meanwhile.
            work.again = bool(work.counted)
        self._ready.extend(works)
        self._wake_workers()

    def _cancelled(self, work: Work, worker: Worker) -> None:
        """Goes on with other work when this was taken away, and lets the cancellation pass when the whole loop is being stopped."""
        ownership = work.ownership
        goes_on = worker.was_cut_off()
        if goes_on and ownership.ours:
            if work.processing is not None:
                work.processing.ended("fenced", work.attempts)
            self._cut_off(work)
            return
        if work.processing is not None:
            work.processing.ended("revoked", work.attempts)
        if not goes_on:
            raise asyncio.CancelledError
        ownership.in_progress -= 1
        self._left([work])
        self._release(work)

    def _done(self, group: Sequence[Work]) -> None:
        """These are published and acknowledged: they may be committed."""
        for work in group:
            ownership = work.ownership
            ownership.in_progress -= 1
            if ownership.ours:
                ownership.watermark.done(work.offset)
                self.handled += 1
            if work.processing is not None:
                work.processing.ended(work.outcome if ownership.ours else "revoked", work.attempts, work.detail)
            self._release(work)
        self._left(group)

    def _left(self, works: Sequence[Work]) -> None:
        self._in_hand -= len(works)
        self._bytes_in_hand -= _bytes(works)
        self._progress.set()
        self._committable.set()

    # -- side tasks ---------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[Deadlines]:
        """What watches over handlers: their deadlines, the tasks they start, and that none keeps the loop to itself."""
        contain_child_tasks(asyncio.get_running_loop())
        deadlines = Deadlines()
        try:
            with watching_for_blocks(self._at_work):
                yield deadlines
        finally:
            deadlines.close()
            # Nobody is left to finish what is in progress, so nobody needs to wait for it.
            self._workers.clear()
            self._progress.set()

    def _at_work(self, task: asyncio.Task[Any]) -> Mapping[str, Any] | None:
        """Asked by another thread."""
        work = next((worker.work for worker in self._workers if worker.task is task), None)
        return None if work is None else self._steps.about(work)


def _bytes(works: Sequence[Work]) -> int:
    return sum([len(work.delivery.value or b"") for work in works])
