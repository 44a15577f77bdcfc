"""What waits keeps its place, and leaves with its partition."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from maypole.bus.pausing import Pausing
from maypole.bus.ports import Delivery, TopicPartition
from maypole.bus.work import Ownership, Work

ASKED, LATER, OTHER = TopicPartition("asked", 0), TopicPartition("asked", 1), TopicPartition("told", 0)


class Belt:
    """A source that only knows what is paused."""

    def __init__(self) -> None:
        self.paused: set[TopicPartition] = set()

    async def fetch(self) -> Sequence[Delivery]:
        return []

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self.paused.update(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self.paused.difference_update(partitions)

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None: ...


def work(ownership: Ownership, offset: int) -> Work:
    return Work(Delivery(*ownership.at, offset, 0, b"flow", b"", ()), ownership, b"flow")


def test_what_waits_leaves_with_its_partition_and_the_rest_stays() -> None:
    owned, woken = {at: Ownership(at) for at in (ASKED, LATER)}, list[Work]()
    pausing = Pausing(owned, {b"flow": None}, woken.extend)
    stays, goes = work(owned[ASKED], 1), work(owned[LATER], 1)
    pausing.hold("asked", stays)
    pausing.hold("asked", goes)
    owned[LATER].taking = False
    pausing.left()
    assert woken == [goes] and list(pausing.of("asked")) == [stays] and pausing.waiting == 1


def test_a_pause_holds_for_partitions_that_come_later_and_for_no_other_subscription() -> None:
    owned = {at: Ownership(at) for at in (ASKED, OTHER)}
    pausing, belt = Pausing(owned, {}, list[Work]().extend), Belt()
    pausing.source = belt
    pausing.pause("asked", ["asked"])
    owned[LATER] = Ownership(LATER)
    pausing.assigned([LATER])
    assert belt.paused == {ASKED, LATER}
    pausing.resume("asked")
    assert belt.paused == set()
    pausing.assigned([LATER])
    assert belt.paused == set(), "what is resumed stays so"
