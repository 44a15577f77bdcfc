"""Reading dead-letter topics: what lies there, and what of it was sent again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from maypole.bus.ports import Cluster, Delivery, TopicPartition, Transport
from maypole.bus.redrive import Copies, NoLetter, letter_of
from maypole.schemas.envelope import CORRELATION_ID, ID
from maypole.schemas.topics import dead_letter_topic, redrive_topic

_SUFFIX: Final = dead_letter_topic("")
_READ_SECONDS: Final = 0.5
_EMPTY_READS_MAX: Final = 6
_NAMES: Final = ("reason", "error", "agent", "topic", "partition", "offset", "attempts", "first-failed-at", "replays")


@dataclass(frozen=True, slots=True)
class Place:
    """`analysis/2/0`: where a dead letter lies, as commands take it."""

    agent: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.agent}/{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Raises ValueError when the text is none."""
        agent, partition, offset = text.split("/")
        return cls(agent.removesuffix(_SUFFIX), int(partition), int(offset))

    @property
    def at(self) -> TopicPartition:
        return TopicPartition(dead_letter_topic(self.agent), self.partition)


def place_of(record: Delivery) -> Place:
    return Place(record.topic.removesuffix(_SUFFIX), record.partition, record.offset)


async def agents_with_letters(cluster: Cluster) -> list[str]:
    return sorted(topic.removesuffix(_SUFFIX) for topic in await cluster.topics() if topic.endswith(_SUFFIX))


async def read_letters(transport: Transport, agents: Iterable[str]) -> AsyncIterator[Delivery]:
    """Everything that lay there when this was called, oldest first within a partition."""
    async for record in read_topics(transport, [dead_letter_topic(agent) for agent in agents]):
        yield record


async def read_copies(transport: Transport, agents: Iterable[str]) -> Copies:
    """What was redriven to these agents up to now."""
    copies = Copies()
    by_topic = {redrive_topic(agent).name: agent for agent in agents}
    async for record in read_topics(transport, by_topic):
        copies.saw(by_topic[record.topic], record)
    return copies


async def read_topics(transport: Transport, topics: Iterable[str]) -> AsyncIterator[Delivery]:
    """All that these topics hold at this moment; those that do not exist hold nothing."""
    there = await transport.cluster.topics()
    places = [TopicPartition(topic, partition) for topic in topics for partition in range(there.get(topic, 0))]
    watermarks = await transport.cluster.watermarks(places) if places else {}
    async for record in read_ranges(transport, watermarks):
        yield record


async def read_ranges(transport: Transport, ranges: Mapping[TopicPartition, tuple[int, int]]) -> AsyncGenerator[Delivery]:
    """From the first offset of each range up to, not including, its second."""
    missing = {at: end for at, (start, end) in ranges.items() if end > start}
    if not missing:
        return
    empty = 0
    async with transport.reader({at: ranges[at][0] for at in missing}) as reader:
        # The last offsets may be markers that are never delivered: several reads without a record mean the end, too.
        while missing and empty < _EMPTY_READS_MAX:
            records = await reader.read(_READ_SECONDS)
            empty = 0 if records else empty + 1
            for record in records:
                at = TopicPartition(record.topic, record.partition)
                if record.offset < ranges[at][1]:
                    yield record
                if record.offset + 1 >= ranges[at][1]:
                    missing.pop(at, None)


async def read_letter(transport: Transport, place: Place) -> Delivery | None:
    """None when nothing lies there, any more or yet."""
    count = (await transport.cluster.topics()).get(place.at.topic, 0)
    if not 0 <= place.partition < count:
        return None
    oldest, end = (await transport.cluster.watermarks([place.at]))[place.at]
    if not oldest <= place.offset < end:
        return None
    async with transport.reader({place.at: place.offset}) as reader:
        for _ in range(_EMPTY_READS_MAX):
            for record in await reader.read(_READ_SECONDS):
                return record if record.offset == place.offset else None
    return None


def letter_row(record: Delivery, copies: Copies) -> dict[str, Any]:
    """What the headers say; a header that is no text is shown as far as it is."""
    headers = dict(record.headers)
    told = {name: text_of(headers.get(f"dlq-{name}")) for name in _NAMES}
    agent = told["agent"] or record.topic.removesuffix(_SUFFIX)
    return {
        "id": str(place_of(record)),
        "agent": agent,
        "reason": told["reason"],
        "error": told["error"],
        "topic": told["topic"],
        "partition": _number(told["partition"]),
        "offset": _number(told["offset"]),
        "attempts": _number(told["attempts"]),
        "first_failed_at": told["first-failed-at"],
        "replays": _number(told["replays"]),
        "redriven": _is_redriven(record, copies),
        "flow_id": text_of(headers.get(CORRELATION_ID)),
        "event_id": text_of(headers.get(ID)),
    }


def _is_redriven(record: Delivery, copies: Copies) -> bool:
    try:
        return copies.settles(letter_of(record))
    except NoLetter:
        return False


def group(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By agent and reason: how many, how many of them were sent again, the first and the newest, and the newest one's place."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = str(row["agent"]), str(row["reason"])
        at = str(row["first_failed_at"])
        found = groups.setdefault(
            key, {"agent": key[0], "reason": key[1], "count": 0, "redriven": 0, "first": at, "last": at, "example": row["id"]}
        )
        found["count"] += 1
        found["redriven"] += bool(row["redriven"])
        found["first"] = min(found["first"], at)
        if at >= found["last"]:
            found |= {"last": at, "example": row["id"]}
    return sorted(groups.values(), key=lambda found: (found["agent"], -found["count"]))


def text_of(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
