"""What lay on an agent's lane of commands when it came: its steps act once every fence in it is obeyed, and not before."""

from __future__ import annotations

import asyncio

from maypole.bus.backlog import BACKLOG_SECONDS_MAX, Backlog
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.ports import TopicPartition

HERE, THERE = TopicPartition("a.commands", 0), TopicPartition("a.commands", 1)


async def is_over(backlog: Backlog) -> bool:
    waiting = asyncio.create_task(backlog.wait())
    for _ in range(3):
        await asyncio.sleep(0)
    over = waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return over


async def test_where_nothing_lay_nothing_is_waited_for() -> None:
    assert await is_over(Backlog("a", {}))


async def test_all_of_it_is_read_and_each_fence_obeyed() -> None:
    backlog = Backlog("a", {HERE: 12})
    backlog.assigned([HERE, THERE])
    backlog.taken(HERE, 10)
    backlog.passed(HERE, 10)
    assert not await is_over(backlog), "one more was not read"
    backlog.taken(HERE, 11)
    backlog.taken(HERE, 12)  # came later: it forbids nothing that had begun to wait
    assert not await is_over(backlog), "it was read, and is not obeyed"
    backlog.passed(HERE, 11)
    assert await is_over(backlog)


async def test_what_others_own_is_not_waited_for() -> None:
    backlog = Backlog("a", {HERE: 3, THERE: 3})
    backlog.assigned([])
    assert not await is_over(backlog)
    backlog.assigned([THERE])
    assert not await is_over(backlog)
    backlog.gone([THERE])
    assert await is_over(backlog)


async def test_a_lane_that_cannot_be_read_keeps_nobody_for_ever() -> None:
    async with virtual_time() as clock:
        backlog, began = Backlog("a", {HERE: 3}), clock.now()
        await backlog.wait()
        assert clock.now() - began == BACKLOG_SECONDS_MAX
        await backlog.wait()
        assert clock.now() - began == BACKLOG_SECONDS_MAX, "said once, waited for once"
