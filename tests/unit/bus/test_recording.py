"""What the ledger is told of attempts: by two instances with the same record in hand, and by one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack

from maypole.bus import Agent, Event, Retry
from maypole.bus.backoff import jittered
from maypole.bus.hook import UNOBSERVED
from maypole.bus.ledger.transitions import UNWRITTEN
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.moves import opened
from maypole.bus.ports import Delivery, Receipt, Record, TopicPartition
from maypole.bus.publisher import Outlets, Publisher
from maypole.bus.recording import Recording
from maypole.bus.stores.memory import MemoryStores
from maypole.bus.work import Ownership, Work
from maypole.schemas.envelope import read_envelope
from maypole.schemas.identifiers import StepId
from tests.unit.bus.test_delivery_loop import Tray

AT = TopicPartition("recording.asked", 0)


class Asked(Event, type="recording.asked"):
    text: str


class Nowhere:
    async def publish(self, records: Sequence[Record]) -> Sequence[Receipt]:
        raise AssertionError("nothing of these steps is published")


def agent() -> Agent:
    found = Agent("answering")

    @found.on(Asked, retry=Retry(attempts=9, delays=(30, 60)))
    async def answer(asked: Asked) -> None: ...

    return found


def pure_agent() -> Agent:
    found = Agent("answering")

    @found.on(Asked, pure=True)
    async def answer(asked: Asked) -> None: ...

    return found


def work_of(record: Delivery) -> Work:
    """As it is once it was admitted."""
    at = TopicPartition(record.topic, record.partition)
    original, move = (record, None) if at == AT else opened("answering", record)
    work = Work(original, Ownership(at), b"flow", record.offset, move)
    work.step, work.envelope = StepId("the-step"), read_envelope(original.headers)
    return work


def copy(work: Work, offset: int) -> Delivery:
    """What it was put off as, as it lies on its retry topic."""
    (record,) = work.outputs
    return Delivery(record.topic, 0, offset, 0, record.key, record.value, tuple(record.headers))


async def nobody_waits() -> None: ...


async def test_who_waited_for_a_lease_leaves_the_next_attempt_its_time_when_the_one_before_has_failed() -> None:
    original = Delivery(*AT, 7, 0, b"flow", b"", (("ce_id", b"e"), ("ce_type", b"recording.asked"), ("ce_correlationid", b"flow")))
    async with AsyncExitStack() as stack:
        clock = await stack.enter_async_context(virtual_time())
        stores = MemoryStores(clock.now, shared=True)

        async def instance(name: str) -> Recording:
            ledger = await stack.enter_async_context(stores.open("answering", name))
            return Recording(
                "answering", agent().subscriptions, ledger, Nowhere(), clock.now, jittered(random.Random(1)), (30, 60), None, nobody_waits
            )

        before, after = await instance("before"), await instance("after")
        first = work_of(original)
        assert await before.begin(first) and first.begun == UNWRITTEN
        assert await before.retry_after(first, 30, over=True)
        await asyncio.sleep(31)

        mine, theirs = work_of(copy(first, 0)), work_of(copy(first, 0))
        for recording, work in ((before, mine), (after, theirs)):
            await recording.look([work])
            assert not await recording.put_off(work), "it is due"
        assert await before.begin(mine) and mine.attempts == 2
        waiting = asyncio.create_task(after.begin(theirs))
        await asyncio.sleep(0.5)
        assert not waiting.done(), "the attempt before may be alive"
        assert await before.retry_after(mine, 60, over=True)
        assert not await waiting, "its time has not come"
        assert theirs.outcome == "retry"
        move = opened("answering", copy(theirs, 1))[1]
        assert move.due_ms == opened("answering", copy(mine, 1))[1].due_ms
        assert after.waiting_flows, "and the flow's later events wait behind it there, too"

        await asyncio.sleep(61)
        third = work_of(copy(theirs, 1))
        await after.look([third])
        assert not await after.put_off(third)
        assert await after.begin(third)
        assert third.attempts - third.excused == 3, "what was given back does not count"


async def test_a_pure_step_that_failed_once_leaves_behind_the_one_before_it_that_did_not() -> None:
    """It has a row, which the other one has not."""
    async with AsyncExitStack() as stack:
        clock = await stack.enter_async_context(virtual_time())
        ledger = await stack.enter_async_context(MemoryStores(clock.now, shared=False).open("answering", "one"))
        recording = Recording(
            "answering", pure_agent().subscriptions, ledger, Nowhere(), clock.now, jittered(random.Random(1)), (), None, nobody_waits
        )
        works = []
        for number in range(2):
            headers = (("ce_id", b"%d" % number), ("ce_type", b"recording.asked"), ("ce_correlationid", b"flow"))
            work = work_of(Delivery(*AT, number, 0, b"flow", b"", headers))
            work.step = StepId(f"step-{number}")
            assert await recording.begin(work)
            work.journal = Record("journal", b"flow", b"journal %d" % number, ())
            work.outputs, work.sendings = [Record("out", b"flow", b"output %d" % number, ())], [UNOBSERVED]
            works.append(work)
        await recording.attempt_failed(works[1], over=True)
        assert works[1].row is not None and await recording.begin(works[1])

        tray, done = Tray(), asyncio.get_running_loop().create_future()
        outlets = Outlets(tray, tray, tray, observed=True, cluster=None)  # type: ignore[arg-type]  # nothing is too large
        publisher = Publisher(outlets, lambda works: None, recording.settle, recording.told, done.set_result, lambda works: None)
        for work in works:
            publisher.finished(work)
        stages = [asyncio.create_task(stage()) for stage in (publisher.record, publisher.journal, publisher.emit)]
        await done
        for stage in stages:
            stage.cancel()
        await asyncio.wait(stages)
    assert tray.values == [b"journal 0", b"journal 1", b"output 0", b"output 1"]
