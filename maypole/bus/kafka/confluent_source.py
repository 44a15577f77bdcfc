"""`Source` over a `Member`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence

from maypole.bus.kafka.confluent_member import Member
from maypole.bus.ports import BrokerUnreachable, Delivery, TopicPartition

_log = logging.getLogger("maypole.bus.kafka")

_CLOSE_SECONDS = 5.0


class ConfluentSource:
    def __init__(self, group: str, member: Member, revoke_seconds: float) -> None:
        self._group = group
        self._member = member
        self._revoke_seconds = revoke_seconds

    async def fetch(self) -> Sequence[Delivery]:
        return await self._member.inbox.take()

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._member.pause(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._member.resume(partitions)

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        await self._member.commit(positions)

    async def close(self) -> None:
        self._member.stop()
        bound = self._revoke_seconds + _CLOSE_SECONDS
        done, _ = await asyncio.wait({self._member.ended}, timeout=bound)
        if not done:
            # With no broker a commit waits for one, and so does the goodbye; the thread is a daemon.
            _log.warning("bus.member_abandoned group=%s seconds=%s", self._group, bound)
        self._member.inbox.clear()
        self._member.inbox.fail(BrokerUnreachable(f"the source of group {self._group} is closed"))
