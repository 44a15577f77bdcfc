"""Topics that are deleted while they are read, and made again under the same name.

A position belongs to the topic that it was reached in. librdkafka keeps it for whatever has the name now, and would pass over the
first records of a topic that was made anew; so would a group's committed offset that was reached in the one before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaException

from maypole.bus.ports import BrokerUnreachable

_log = logging.getLogger("maypole.bus.kafka")

_LOOK_SECONDS: Final = 2.0

_GONE: Final = ""

MadeAnew = Callable[[str], None]
TopicIds = Callable[[Collection[str]], Awaitable[Mapping[str, str]]]
"""The identity of each topic that is there; a topic that is made again gets another one."""


class TopicWatch:
    """For all sources of a transport, so that no more than one question is under way."""

    def __init__(self, ids: TopicIds) -> None:
        self._ids = ids
        self._known: dict[str, str] = {}
        self._readers: dict[MadeAnew, Collection[str]] = {}

    @contextmanager
    def telling(self, topics: Collection[str], made_anew: MadeAnew) -> Iterator[None]:
        """`made_anew` is told of each of these topics that becomes another one. Call `learn` first."""
        self._readers[made_anew] = topics
        try:
            yield
        finally:
            del self._readers[made_anew]
            read = {topic for topics in self._readers.values() for topic in topics}
            self._known = {topic: identity for topic, identity in self._known.items() if topic in read}

    async def learn(self, topics: Collection[str]) -> None:
        """What these are, before anybody has a position in them."""
        self._known = {**(await self._found(topics) or {}), **self._known}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            read = {topic for topics in self._readers.values() for topic in topics}
            found = await self._found(read)
            if found is not None:
                self._compare(read, found)

    async def _found(self, topics: Collection[str]) -> Mapping[str, str] | None:
        """None: nobody could tell."""
        try:
            return await self._ids(sorted(topics)) if topics else {}
        except (BrokerUnreachable, PermissionError, KafkaException) as error:
            _log.debug("bus.topics_unknown topics=%s error=%s", sorted(topics), error)
            return None

    def _compare(self, read: Collection[str], found: Mapping[str, str]) -> None:
        for topic in read:
            if topic not in found and self._known.get(topic):
                self._known[topic] = _GONE
                _log.error("bus.topic_deleted topic=%s then=what reads it waits until it is made again", topic)
        for topic, now in found.items():
            if self._known.get(topic, now) != now:
                _log.error("bus.topic_made_anew topic=%s then=it is read from its oldest record", topic)
                for made_anew, topics in self._readers.items():
                    if topic in topics:
                        made_anew(topic)
            self._known[topic] = now
