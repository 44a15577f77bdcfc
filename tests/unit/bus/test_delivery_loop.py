"""Between fetch and commit: bounded, in order, and nothing of a partition that was taken away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from maypole.bus import delivery_loop
from maypole.bus.attempt import Guard
from maypole.bus.delivery_loop import BYTES_IN_HAND_MAX, RECORDS_IN_HAND_MAX, DeliveryLoop
from maypole.bus.guarding import Guarding
from maypole.bus.hook import UNOBSERVED
from maypole.bus.ports import Delivery, Receipt, Record, TopicPartition
from maypole.bus.publisher import Outlets
from maypole.bus.work import Work
from maypole.schemas.identifiers import StepId

ONE, TWO = TopicPartition("t", 1), TopicPartition("t", 2)


def record(at: TopicPartition, offset: int, key: bytes | None = None) -> Delivery:
    return Delivery(at.topic, at.partition, offset, 0, key or f"{at.partition}-{offset}".encode(), b"", ())


class Belt:
    """A source that is fed by the test."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[Sequence[Delivery]] = asyncio.Queue()
        self.committed: dict[TopicPartition, int] = {}
        self.fetched = 0
        self._moved = asyncio.Event()

    async def fetch(self) -> Sequence[Delivery]:
        batch = await self.batches.get()
        self.fetched += len(batch)
        return batch

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        self.committed.update(positions)
        self._moved.set()

    async def wait_committed(self, at: TopicPartition, position: int) -> None:
        while self.committed.get(at) != position:
            self._moved.clear()
            await self._moved.wait()

    def pause(self, partitions: Collection[TopicPartition]) -> None: ...

    def resume(self, partitions: Collection[TopicPartition]) -> None: ...


class Tray:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []

    async def publish(self, records: Sequence[Record]) -> Sequence[Receipt]:
        self.values += [each.value for each in records]
        return [Receipt(0, 0)] * len(records)


class HeldSteps:
    """Emits each record's key; a record whose key is held waits until the test lets it go."""

    def __init__(self) -> None:
        self.guarding = Guarding("tests", (), {}, time.time)
        self.held: dict[bytes, asyncio.Event] = {}
        self.begun: list[bytes] = []
        self.cancelled: list[bytes] = []
        self.clean_up_until: asyncio.Event | None = None

    def hold(self, key: bytes) -> asyncio.Event:
        return self.held.setdefault(key, asyncio.Event())

    def admit(self, works: Sequence[Work]) -> None: ...

    def conclude(self, works: Sequence[Work]) -> None: ...

    def left(self, step: StepId) -> None: ...

    async def assigned(self, partitions: Collection[TopicPartition]) -> None: ...

    async def forget(self) -> None: ...

    async def watch(self) -> None: ...

    async def let_go(self, work: Work) -> None: ...

    async def look(self, works: Sequence[Work]) -> None: ...

    async def settle(self, works: Sequence[Work]) -> Sequence[Work]:
        return works

    async def told(self, works: Sequence[Work]) -> None: ...

    async def run(self, work: Work, guard: Guard) -> None:
        key = work.delivery.key or b""
        self.begun.append(key)
        try:
            if key in self.held:
                await self.held[key].wait()
        except asyncio.CancelledError:
            self.cancelled.append(key)
            if self.clean_up_until is not None:
                await self.clean_up_until.wait()
            raise
        work.outputs, work.sendings = [Record("out", key, key, ())], [UNOBSERVED]


@asynccontextmanager
async def turning(steps: HeldSteps, belt: Belt, tray: Tray, *, concurrency: int = 8, grace: float = 0.05) -> AsyncIterator[DeliveryLoop]:
    loop = DeliveryLoop("tests", steps, Outlets(tray, tray, tray, observed=True, cluster=None), concurrency, grace)  # type: ignore[arg-type]  # a stand-in decides as little as possible
    await loop.assigned([ONE, TWO])
    task = asyncio.create_task(loop.run(belt))
    try:
        yield loop
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settle() -> None:
    """Until everything that can go on without the test has done so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_worker_whose_work_is_taken_away_while_it_is_cut_off_goes_on_with_other_work() -> None:
    steps, belt, tray = HeldSteps(), Belt(), Tray()
    steps.hold(b"1-0")
    cleaned = steps.clean_up_until = asyncio.Event()
    async with turning(steps, belt, tray, concurrency=1) as loop:
        belt.batches.put_nowait([record(ONE, 0)])
        await settle()
        (worker,) = loop._workers
        worker.cut_off()
        await settle()
        loop.lost([ONE])
        cleaned.set()
        await settle()
        belt.batches.put_nowait([record(TWO, 0)])
        async with asyncio.timeout(30):
            await belt.wait_committed(TWO, 1)
    assert steps.cancelled == [b"1-0"]


async def test_a_revoked_partition_is_finished_within_the_grace_and_its_position_handed_over() -> None:
    steps, belt, tray = HeldSteps(), Belt(), Tray()
    last = steps.hold(b"1-1")
    async with turning(steps, belt, tray, grace=5) as loop:
        belt.batches.put_nowait([record(ONE, 0), record(ONE, 1)])
        await settle()
        revoking = asyncio.create_task(loop.revoked([ONE]))
        await settle()
        assert not revoking.done(), "what was begun is finished first"
        last.set()
        assert await revoking == {ONE: 2}
    assert tray.values == [b"1-0", b"1-1"]


async def test_what_does_not_finish_within_the_grace_is_cancelled_and_emits_nothing() -> None:
    steps, belt, tray = HeldSteps(), Belt(), Tray()
    stuck = steps.hold(b"1-1")
    async with turning(steps, belt, tray) as loop:
        belt.batches.put_nowait([record(ONE, 0), record(ONE, 1), record(ONE, 2), record(TWO, 0)])
        await settle()
        assert await loop.revoked([ONE]) == {ONE: 1}, "only the contiguous prefix"
        await settle()
        assert steps.cancelled == [b"1-1"]
        stuck.set()
        belt.batches.put_nowait([record(TWO, 1)])
        await settle()
    assert b"1-1" not in tray.values
    assert tray.values[-1] == b"2-1", "the other partition goes on"


async def test_records_not_yet_begun_are_left_to_the_next_owner() -> None:
    steps, belt, tray = HeldSteps(), Belt(), Tray()
    first = steps.hold(b"1-0")
    async with turning(steps, belt, tray, concurrency=1, grace=5) as loop:
        belt.batches.put_nowait([record(ONE, 0), record(ONE, 1)])
        await settle()
        revoking = asyncio.create_task(loop.revoked([ONE]))
        await settle()
        first.set()
        assert await revoking == {ONE: 1}
        await settle()
    assert steps.begun == [b"1-0"]


async def test_of_a_lost_partition_nothing_more_is_published_or_committed() -> None:
    steps, belt, tray = HeldSteps(), Belt(), Tray()
    held = steps.hold(b"1-0")
    async with turning(steps, belt, tray) as loop:
        belt.batches.put_nowait([record(ONE, 0), record(ONE, 1)])
        await settle()
        before = list(tray.values)
        loop.lost([ONE])
        held.set()
        await settle()
        belt.batches.put_nowait([record(ONE, 2), record(TWO, 0)])
        await settle()
        assert belt.committed == {TWO: 1}
    assert tray.values == [*before, b"2-0"]


async def test_one_flow_goes_one_after_the_other_and_others_pass_it() -> None:
    steps, belt, tray = HeldSteps(), Belt(), Tray()
    flow, other = b"flow", b"other"
    held = steps.hold(flow)
    async with turning(steps, belt, tray):
        belt.batches.put_nowait([record(ONE, 0, flow), record(ONE, 1, flow), record(ONE, 2, other)])
        await settle()
        assert steps.begun == [flow, other]
        assert belt.committed == {}, "the watermark waits for the first"
        held.set()
        await settle()
        assert belt.committed == {ONE: 3}
    assert tray.values == [other, flow, flow]


async def test_no_more_is_fetched_than_fits_into_the_window() -> None:
    steps, belt, tray = HeldSteps(), Belt(), Tray()
    batch = 100
    keys = [f"1-{offset}".encode() for offset in range(RECORDS_IN_HAND_MAX * 2)]
    events = [steps.hold(key) for key in keys]
    for start in range(0, len(keys), batch):
        belt.batches.put_nowait([record(ONE, offset) for offset in range(start, start + batch)])
    async with turning(steps, belt, tray):
        await settle()
        assert belt.fetched <= RECORDS_IN_HAND_MAX + batch
        for event in events:
            event.set()
        await belt.wait_committed(ONE, len(keys))
    assert len(tray.values) == len(keys)


async def test_large_records_fill_the_window_before_there_are_many() -> None:
    steps, belt, tray = HeldSteps(), Belt(), Tray()
    value = bytes(1_000_000)
    count = 3 * BYTES_IN_HAND_MAX // len(value)
    events = [steps.hold(f"1-{offset}".encode()) for offset in range(count)]
    for offset in range(count):
        belt.batches.put_nowait([record(ONE, offset)._replace(value=value)])
    async with turning(steps, belt, tray):
        await settle()
        assert belt.fetched == BYTES_IN_HAND_MAX // len(value) + 1
        for event in events:
            event.set()
        await belt.wait_committed(ONE, count)
    assert len(tray.values) == count


class Contested(HeldSteps):
    """Emits each record's offset. Another attempt answers for the steps in `losing`, once each; what was recorded is only told again."""

    def __init__(self, *losing: int) -> None:
        super().__init__()
        self.losing = set(losing)
        self.unreadable: set[int] = set()
        self.settling = asyncio.Event()
        self.settling.set()
        self.settled: list[list[int]] = []
        self.rows: set[int] = set()
        self.held_once: dict[int, asyncio.Event] = {}
        self.called: list[int] = []

    def admit(self, works: Sequence[Work]) -> None:
        for work in works:
            if work.offset not in self.unreadable:
                work.step = work.counted = StepId(f"step-{work.delivery.partition}-{work.offset}")

    def about(self, work: Work) -> dict[str, object]:
        return {}

    async def settle(self, works: Sequence[Work]) -> Sequence[Work]:
        await self.settling.wait()
        self.settled.append([work.offset for work in works])
        for work in works:
            work.lost = work.offset in self.losing
            work.recorded = not work.lost
            self.losing.discard(work.offset)
            if work.recorded:
                self.rows.add(work.offset)
        return [work for work in works if not work.lost]

    async def run(self, work: Work, guard: Guard) -> None:
        if work.offset not in self.rows:
            self.called.append(work.offset)
            if work.offset in self.held_once:
                await self.held_once.pop(work.offset).wait()
        value = str(work.offset).encode()
        work.outputs, work.sendings = [Record("out", work.delivery.key, value, ())], [UNOBSERVED]


def numbers(tray: Tray) -> list[int]:
    return [int(value or b"") for value in tray.values]


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_what_was_handled_behind_a_step_that_begins_again_leaves_behind_it(concurrency: int) -> None:
    steps, belt, tray = Contested(1, 3), Belt(), Tray()
    steps.settling.clear()
    in_work, flow = asyncio.Event(), b"flow"
    steps.held_once[5] = in_work
    async with turning(steps, belt, tray, concurrency=concurrency) as loop:
        belt.batches.put_nowait([record(ONE, offset, flow) for offset in range(8)])
        await settle()
        assert steps.called == [0, 1, 2, 3, 4, 5], "all but the last two are handled, or about to be"
        steps.settling.set()
        await settle()
        assert numbers(tray) == [0], "what follows the lost one waits for it"
        in_work.set()
        async with asyncio.timeout(30):
            await belt.wait_committed(ONE, 8)
        assert loop._in_hand == 0 and not loop._lanes and not loop._beginning_again
        assert not loop._publisher._barred and not loop._repetitions._in_hand and not loop._owned[ONE].in_progress
    assert numbers(tray) == [*range(8)]
    assert steps.called == [0, 1, 2, 3, 4, 5, 1, 3, 6, 7], "nobody does again what is recorded"


async def test_what_nobody_can_read_keeps_its_place_behind_a_step_that_begins_again() -> None:
    steps, belt, tray = Contested(0), Belt(), Tray()
    steps.unreadable = {1, 2}
    async with turning(steps, belt, tray):
        belt.batches.put_nowait([record(ONE, offset, b"flow") for offset in range(4)])
        async with asyncio.timeout(30):
            await belt.wait_committed(ONE, 4)
    assert numbers(tray) == [0, 1, 2, 3]


async def test_other_flows_pass_one_in_which_a_step_begins_again() -> None:
    steps, belt, tray = Contested(0), Belt(), Tray()
    in_work = steps.held_once[1] = asyncio.Event()
    async with turning(steps, belt, tray):
        belt.batches.put_nowait([record(ONE, 0, b"flow"), record(ONE, 1, b"flow"), record(ONE, 2, b"other")])
        await settle()
        assert numbers(tray) == [2]
        in_work.set()
        async with asyncio.timeout(30):
            await belt.wait_committed(ONE, 3)
    assert numbers(tray) == [2, 0, 1]


@pytest.mark.parametrize(("losing", "called"), [((), [0, 1, 1, 2, 3]), ((0,), [0, 1, 0, 1, 2, 3])], ids=["alone", "behind another one"])
async def test_what_a_command_cut_off_keeps_its_place_in_its_flow(losing: tuple[int, ...], called: list[int]) -> None:
    steps, belt, tray = Contested(*losing), Belt(), Tray()
    steps.held_once[1] = asyncio.Event()
    async with turning(steps, belt, tray) as loop:
        belt.batches.put_nowait([record(ONE, offset, b"flow") for offset in range(4)])
        await settle()
        assert await loop.halt(StepId("step-1-1")) is not None
        async with asyncio.timeout(30):
            await belt.wait_committed(ONE, 4)
    assert (numbers(tray), steps.called) == ([0, 1, 2, 3], called)


async def test_a_partition_that_is_lost_takes_its_part_of_a_flow_that_begins_again_with_it() -> None:
    """One flow has events on both."""
    steps, belt, tray = Contested(0), Belt(), Tray()
    in_work = steps.held_once[2] = asyncio.Event()
    async with turning(steps, belt, tray) as loop:
        belt.batches.put_nowait([record(ONE, 0, b"flow"), record(ONE, 1, b"flow"), record(TWO, 2, b"flow"), record(TWO, 3, b"flow")])
        await settle()
        loop.lost([ONE])
        in_work.set()
        async with asyncio.timeout(30):
            await belt.wait_committed(TWO, 4)
        assert loop._in_hand == 0 and not loop._lanes and not loop._beginning_again and not loop._publisher._barred
    assert numbers(tray) == [2, 3]


async def test_draining_finishes_what_was_fetched_and_fetches_no_more() -> None:
    steps, belt, tray = HeldSteps(), Belt(), Tray()
    held = steps.hold(b"1-0")
    async with turning(steps, belt, tray) as loop:
        belt.batches.put_nowait([record(ONE, 0)])
        await settle()
        draining = asyncio.create_task(loop.drain(5))
        await settle()
        belt.batches.put_nowait([record(ONE, 1)])
        await settle()
        assert belt.fetched == 1
        held.set()
        assert await draining
        assert belt.committed == {ONE: 1}


async def test_draining_waits_for_no_record_whose_row_is_still_being_looked_for() -> None:
    class Unanswered(HeldSteps):
        async def look(self, works: Sequence[Work]) -> None:
            await asyncio.Event().wait()

    belt = Belt()
    async with turning(Unanswered(), belt, Tray()) as loop:
        belt.batches.put_nowait([record(ONE, 0)])
        await settle()
        assert await loop.drain(deadline_seconds=20), "there is nothing in hand that anybody works on"
    assert belt.committed == {}, "and it is the next owner's"


async def test_draining_gives_up_at_its_deadline() -> None:
    steps, belt, tray = HeldSteps(), Belt(), Tray()
    steps.hold(b"1-0")
    async with turning(steps, belt, tray) as loop:
        belt.batches.put_nowait([record(ONE, 0)])
        await settle()
        assert not await loop.drain(0.01)
    assert belt.committed == {}


async def test_a_bug_in_a_step_stops_the_loop_and_commits_nothing() -> None:
    class BrokenSteps(HeldSteps):
        async def run(self, work: Work, guard: Guard) -> None:
            raise LookupError("a bug of ours")

    belt, tray = Belt(), Tray()
    loop = DeliveryLoop("tests", BrokenSteps(), Outlets(tray, tray, tray, observed=True, cluster=None), 2)  # type: ignore[arg-type]
    await loop.assigned([ONE])
    belt.batches.put_nowait([record(ONE, 0)])
    with pytest.raises(ExceptionGroup) as stopped:
        await loop.run(belt)
    assert stopped.group_contains(LookupError, match="a bug of ours")
    assert belt.committed == {}


assert delivery_loop.REVOKE_GRACE_SECONDS < 10.0, "less than what the transports allow"
