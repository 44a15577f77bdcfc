"""By which sink a group leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from maypole.bus.hook import UNOBSERVED
from maypole.bus.ports import Delivery, Receipt, Record, TopicPartition
from maypole.bus.publisher import Outlets, Publisher
from maypole.bus.work import Ownership, Work

MANY, FEW = 500, 5


class Tray:
    def __init__(self) -> None:
        self.topics: list[str] = []

    async def publish(self, records: Sequence[Record]) -> Sequence[Receipt]:
        self.topics += [record.topic for record in records]
        return [Receipt(0, 0)] * len(records)


async def _settle(works: Sequence[Work]) -> Sequence[Work]:
    return works


async def _told(works: Sequence[Work]) -> None:
    raise AssertionError("nobody waits for any of these")


def finished(number: int, *, recorded: bool) -> Work:
    work = Work(Delivery("t", 0, number, 0, b"k", b"", ()), Ownership(TopicPartition("t", 0)), b"k")
    work.recorded = recorded
    work.journal = Record("journal", b"k", b"", ())
    work.outputs, work.sendings = [Record("out", b"k", b"", ())], [UNOBSERVED]
    return work


@pytest.mark.parametrize(
    ("count", "recorded", "observed", "expected"),
    [
        (MANY, False, False, ([], ["journal"] * MANY, ["out"] * MANY)),
        (MANY, True, False, ([], ["journal"] * MANY + ["out"] * MANY, [])),
        (FEW, False, False, (["journal"] * FEW + ["out"] * FEW, [], [])),
        (MANY, False, True, (["out"] * MANY, ["journal"] * MANY, [])),
        (MANY, True, True, (["journal"] * MANY + ["out"] * MANY, [], [])),
    ],
    ids=["many", "many recorded", "few", "many with spans", "many recorded with spans"],
)
async def test_many_leave_by_the_bulk_sink_of_their_stage_unless_spans_ask_where_they_lie(
    count: int, recorded: bool, observed: bool, expected: tuple[list[str], list[str], list[str]]
) -> None:
    few, journal, outputs = Tray(), Tray(), Tray()
    done = asyncio.get_running_loop().create_future()
    outlets = Outlets(few, journal, outputs, observed, None)  # type: ignore[arg-type]  # nothing is too large
    publisher = Publisher(outlets, lambda works: None, _settle, _told, done.set_result, lambda works: None)
    for number in range(count):
        publisher.finished(finished(number, recorded=recorded))
    stages = [asyncio.create_task(stage()) for stage in (publisher.record, publisher.journal, publisher.emit)]
    assert len(await done) == count
    for stage in stages:
        stage.cancel()
    await asyncio.wait(stages)
    assert (few.topics, journal.topics, outputs.topics) == expected
