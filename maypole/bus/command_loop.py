"""The lane of commands: a consumer of its own beside the deliveries, so that nothing that holds those up holds up a command.

Commands are few and each is about one step, so each gets a task of its own; those about one step are obeyed in order.
The offset is committed once the answer is acknowledged: what a crash cuts off comes again, to whichever instance.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from weakref import WeakValueDictionary

from maypole.bus.backlog import Backlog
from maypole.bus.blocked import watching_for_blocks
from maypole.bus.child_tasks import contain_child_tasks, handles
from maypole.bus.command_reading import CommandReading, Order, Refused
from maypole.bus.commits import commit_progress
from maypole.bus.dead_letters import dead_letter, fitting
from maypole.bus.deadlines import Deadlines, HandlerGuard
from maypole.bus.obeying import Obeying
from maypole.bus.ports import Delivery, Record, Sink, Source, TopicPartition
from maypole.bus.work import Ownership
from maypole.schemas import commands
from maypole.schemas.identifiers import CommandId, StepId
from maypole.schemas.topics import command_topic, dead_letter_topic

log = logging.getLogger("maypole.bus.command_loop")

COMMANDS_IN_HAND_MAX: Final = 1000
"""Most of them wait for nothing but a lease or the next attempt."""
REVOKE_GRACE_SECONDS: Final = 5.0


def command_group(agent: str) -> str:
    """The consumer group of an agent's commands: it rebalances, lags and commits apart from that of its events."""
    return command_topic(agent)


class _Hand(HandlerGuard):
    """The task that obeys one command, and the guard over the handler it runs."""

    def __init__(self, deadlines: Deadlines, delivery: Delivery, ownership: Ownership) -> None:
        super().__init__(deadlines)
        self.delivery = delivery
        self.ownership = ownership
        self.order: Order | None = None
        """What it is told, once that is read."""
        self.rests = False

    @contextmanager
    def resting(self) -> Iterator[None]:
        """It only waits: to cut it off now leaves nothing half done."""
        self.rests = True
        try:
            yield
        finally:
            self.rests = False


class CommandLoop:
    """Everything between the fetch of a command and its commit. Also what the source tells of rebalances."""

    def __init__(
        self,
        agent: str,
        reading: CommandReading,
        obeying: Obeying,
        sink: Sink,
        now: Callable[[], float],
        backlog: Backlog,
        letter_bytes_max: int,
        grace_seconds: float = REVOKE_GRACE_SECONDS,
    ) -> None:
        """`now` gives seconds since the epoch; `letter_bytes_max` is what a dead letter may have."""
        self._agent = agent
        self._letters = dead_letter_topic(agent)
        self._letter_bytes_max = letter_bytes_max
        self._reading = reading
        self._obeying = obeying
        self._sink = sink
        self._now = now
        self._backlog = backlog
        self._grace_seconds = grace_seconds
        self._owned: dict[TopicPartition, Ownership] = {}
        self._hands: set[_Hand] = set()
        self._in_hand: set[CommandId] = set()
        self._turns: WeakValueDictionary[StepId, asyncio.Lock] = WeakValueDictionary()
        self._progress = asyncio.Event()
        self._committable = asyncio.Event()
        self._intake: asyncio.Task[None] | None = None

    # -- the source's side: rebalances -------------------------------------------------------------------------

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        for at in partitions:
            self._owned[at] = Ownership(at)
        self._backlog.assigned(partitions)
        log.info("commands.assigned", extra={"agent": self._agent, "partitions": sorted(partitions)})

    async def revoked(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """What acts is given the grace, what only waits is its next owner's at once."""
        leaving = self._let_go(partitions)
        await self._settled([hand for hand in self._hands if hand.ownership in leaving], self._grace_seconds)
        await self._cut_off([hand for hand in self._hands if hand.ownership in leaving])
        return {ownership.at: ownership.watermark.position for ownership in leaving if ownership.watermark.position is not None}

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        leaving = self._let_go(partitions)
        for ownership in leaving:
            ownership.ours = False
        for hand in self._hands:
            if hand.ownership in leaving and hand.task is not None:
                hand.task.cancel()

    def _let_go(self, partitions: Collection[TopicPartition]) -> Sequence[Ownership]:
        leaving = [self._owned.pop(at) for at in partitions if at in self._owned]
        self._backlog.gone(partitions)
        for ownership in leaving:
            ownership.taking = False
        return leaving

    # -- taking and obeying -------------------------------------------------------------------------------------

    async def run(self, source: Source) -> None:
        """Until cancelled. An exception that leaves this is a bug or a broker that refuses; nothing of it is committed."""
        contain_child_tasks(asyncio.get_running_loop())
        with watching_for_blocks(self._at_work):
            await self._run(source)

    async def _run(self, source: Source) -> None:
        async with _deadlines() as deadlines, asyncio.TaskGroup() as group:
            group.create_task(
                commit_progress(source, self._owned, self._committable, self._progress.set), name=f"{self._agent} commands commit"
            )
            self._intake = group.create_task(self._take(source, deadlines, group), name=f"{self._agent} commands intake")

    async def drain(self, deadline_seconds: float) -> None:
        """Fetch no more and finish what acts; what only waits is repeated."""
        if self._intake is not None:
            self._intake.cancel()
        await self._settled(self._hands, deadline_seconds)
        await self._cut_off(self._hands)

    async def _take(self, source: Source, deadlines: Deadlines, group: asyncio.TaskGroup) -> None:
        while True:
            for delivery in await source.fetch():
                ownership = self._owned.get(TopicPartition(delivery.topic, delivery.partition))
                if ownership is not None:
                    ownership.watermark.taken(delivery.offset)
                    self._backlog.taken(ownership.at, delivery.offset)
                    hand = _Hand(deadlines, delivery, ownership)
                    self._hands.add(hand)
                    hand.task = group.create_task(self._serve(hand), name=f"{self._agent} command {delivery.partition}/{delivery.offset}")
            while len(self._hands) >= COMMANDS_IN_HAND_MAX:
                self._progress.clear()
                await self._progress.wait()

    async def _serve(self, hand: _Hand) -> None:
        handles.set(True)
        try:
            for record in await self._obeyed(hand):
                if not hand.ownership.ours:
                    return
                await self._sink.publish([fitting(record, self._letter_bytes_max) if record.topic == self._letters else record])
            hand.ownership.watermark.done(hand.delivery.offset)
            self._committable.set()
        finally:
            hand.close()
            self._backlog.passed(hand.ownership.at, hand.delivery.offset)
            self._hands.discard(hand)
            self._progress.set()

    async def _obeyed(self, hand: _Hand) -> Sequence[Record]:
        try:
            order = hand.order = await self._reading.read(hand.delivery)
            if not isinstance(order.body, commands.Fence):
                self._backlog.passed(hand.ownership.at, hand.delivery.offset)
            if order.command in self._in_hand:
                return ()  # sent again while it is being obeyed: its answer is on the way
            self._in_hand.add(order.command)
            try:
                turn = self._turns.setdefault(order.step, asyncio.Lock())
                async with turn:
                    return await self._obeying.obey(order, hand)
            finally:
                self._in_hand.discard(order.command)
        except Refused as error:
            return [self._refused(hand.delivery, error)]

    def _at_work(self, task: asyncio.Task[Any]) -> Mapping[str, Any] | None:
        """Asked by another thread."""
        order = next((hand.order for hand in tuple(self._hands) if hand.task is task), None)
        if order is None:
            return None
        return {"agent": self._agent, "flow_id": order.envelope.flow_id, "step_id": order.step, "command": type(order.body).__name__}

    def _refused(self, delivery: Delivery, error: Refused) -> Record:
        position = {"topic": delivery.topic, "partition": delivery.partition, "offset": delivery.offset}
        log.error("command.refused", extra={"agent": self._agent, "reason": error.reason.value, "error": str(error), **position})
        return dead_letter(self._agent, delivery, error.reason, str(error), 0, self._now() * 1000)

    # -- ends ---------------------------------------------------------------------------------------------------

    async def _settled(self, hands: Collection[_Hand], seconds: float) -> None:
        """Until all that are left of these only wait, or the time is up."""
        watched = set(hands)
        try:
            async with asyncio.timeout(seconds):
                while any(not hand.rests for hand in watched & self._hands):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            cut = sum(not hand.rests for hand in watched & self._hands)
            log.warning("commands.cut_off", extra={"agent": self._agent, "commands": cut, "then": "they are repeated"})

    async def _cut_off(self, hands: Collection[_Hand]) -> None:
        tasks = [hand.task for hand in hands if hand.task is not None]
        for hand in hands:
            hand.ownership.ours = False
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._grace_seconds)


@asynccontextmanager
async def _deadlines() -> AsyncIterator[Deadlines]:
    deadlines = Deadlines()
    try:
        yield deadlines
    finally:
        deadlines.close()
