"""A consumer group in memory: who wants which partitions, who has them, how far it got."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from maypole.bus.ports import TopicPartition


class GroupMember(Protocol):
    """What a group asks of a member: its topics, and to look at its share again."""

    @property
    def topics(self) -> Collection[str]: ...

    def share_changed(self) -> None: ...


class Group:
    """Range assignment, handed over one partition at a time: nobody gets one that another member still holds."""

    def __init__(self, partitions_of: Callable[[str], int]) -> None:
        self.committed: dict[TopicPartition, int] = {}
        self.members: list[GroupMember] = []
        self._partitions_of = partitions_of
        self._holder: dict[TopicPartition, GroupMember] = {}
        self._share: dict[GroupMember, set[TopicPartition]] = {}

    def join(self, member: GroupMember) -> None:
        self.members.append(member)
        self.rebalance()

    def leave(self, member: GroupMember) -> None:
        """What it held is free at once. A member that is not in the group is no news."""
        if member in self.members:
            self.members.remove(member)
        for partition in [p for p, holder in self._holder.items() if holder is member]:
            del self._holder[partition]
        self.rebalance()

    def rebalance(self) -> None:
        """Work out the shares anew and have every member look at its own; also after topics appeared."""
        self._share = {member: set() for member in self.members}
        for topic in sorted({topic for member in self.members for topic in member.topics}):
            readers = [member for member in self.members if topic in member.topics]
            count = self._partitions_of(topic)
            each, extra = divmod(count, len(readers))
            start = 0
            for index, member in enumerate(readers):
                end = start + each + (1 if index < extra else 0)
                self._share[member].update(TopicPartition(topic, partition) for partition in range(start, end))
                start = end
        for member in list(self.members):
            member.share_changed()

    def to_give_back(self, member: GroupMember) -> list[TopicPartition]:
        share = self._share.get(member, set())
        return sorted(p for p, holder in self._holder.items() if holder is member and p not in share)

    def to_take(self, member: GroupMember) -> list[TopicPartition]:
        """Those of its share that nobody holds."""
        return sorted(p for p in self._share.get(member, set()) if p not in self._holder)

    def take(self, member: GroupMember, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self._holder[partition] = member

    def give_back(self, member: GroupMember, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            if self._holder.get(partition) is member:
                del self._holder[partition]
        for other in list(self.members):
            if other is not member:
                other.share_changed()

    def held_by(self, member: GroupMember) -> list[TopicPartition]:
        return sorted(p for p, holder in self._holder.items() if holder is member)

    def commit(self, member: GroupMember, positions: Mapping[TopicPartition, int]) -> None:
        """Positions of partitions that somebody else holds are left out."""
        for partition, offset in positions.items():
            if self._holder.get(partition) is member:
                self.committed[partition] = offset
