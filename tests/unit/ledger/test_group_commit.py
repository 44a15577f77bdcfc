"""Group commits: what is shared, what is told to whom, and what stays in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from maypole.bus.stores.group_commit import GroupCommit


class Disk:
    """Commits when it is let."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.asked = asyncio.Semaphore(0)
        self.let = asyncio.Semaphore(0)

    async def commit(self, group: list[str]) -> Sequence[str]:
        self.groups.append(group)
        self.asked.release()
        await self.let.acquire()
        if "bad" in group:
            raise OSError("the disk is full")
        return [work.upper() for work in group]


async def test_what_is_asked_during_a_commit_shares_the_next_one() -> None:
    disk = Disk()
    commits = GroupCommit(disk.commit)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(commits.call("a"))
        await disk.asked.acquire()
        later = [tasks.create_task(commits.call(work)) for work in "bcd"]
        disk.let.release()
        disk.let.release()
    assert disk.groups == [["a"], ["b", "c", "d"]]
    assert [first.result(), *(each.result() for each in later)] == ["A", "B", "C", "D"]


async def test_a_failed_commit_is_told_to_its_whole_group_and_to_nobody_else() -> None:
    disk = Disk()
    commits = GroupCommit(disk.commit)
    first = asyncio.create_task(commits.call("a"))
    await disk.asked.acquire()
    together = [asyncio.create_task(commits.call(work)) for work in ("b", "bad")]
    disk.let.release()
    await disk.asked.acquire()
    last = asyncio.create_task(commits.call("c"))
    disk.let.release()
    disk.let.release()
    assert await first == "A"
    for each in together:
        with pytest.raises(OSError, match="the disk is full"):
            await each
    assert await last == "C"


async def test_who_is_cancelled_takes_nothing_back_and_holds_nobody_up() -> None:
    disk = Disk()
    commits = GroupCommit(disk.commit)
    gone, stays = asyncio.create_task(commits.call("gone")), asyncio.create_task(commits.call("stays"))
    await disk.asked.acquire()
    gone.cancel()
    disk.let.release()
    assert await stays == "STAYS"
    assert disk.groups == [["gone", "stays"]]


async def test_finishing_waits_for_what_was_asked_before() -> None:
    disk = Disk()
    commits = GroupCommit(disk.commit)
    asked = asyncio.create_task(commits.call("a"))
    await disk.asked.acquire()
    finishing = asyncio.create_task(commits.finish())
    await asyncio.sleep(0)
    assert not finishing.done()
    disk.let.release()
    await finishing
    assert await asked == "A"


async def test_tidying_comes_after_the_answers_of_a_group() -> None:
    disk = Disk()
    disk.let.release()
    told: list[bool] = []

    async def tidy() -> None:
        await asyncio.sleep(0)
        told.append(asked.done())

    commits = GroupCommit(disk.commit, tidy)
    asked = asyncio.create_task(commits.call("a"))
    await asked
    await commits.finish()
    assert told == [True]
