"""Reading dead-letter topics: what lies there, and one of them as far as it can be read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from maypole.bus.composition import Platform
from maypole.bus.ports import Cluster, Delivery, TopicPartition, Transport
from maypole.schemas.codec import schema_id_of
from maypole.schemas.envelope import CORRELATION_ID, ID, read_envelope
from maypole.schemas.errors import ContractRefused, Undecodable
from maypole.schemas.topics import dead_letter_topic
from maypole.services.cli.json_values import to_json

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


async def agents_with_letters(cluster: Cluster) -> list[str]:
    return sorted(topic.removesuffix(_SUFFIX) for topic in await cluster.topics() if topic.endswith(_SUFFIX))


async def read_letters(transport: Transport, agents: Iterable[str]) -> AsyncIterator[Delivery]:
    """Everything that lay there when this was called, oldest first within a partition."""
    there = await transport.cluster.topics()
    topics = [dead_letter_topic(agent) for agent in agents]
    places = [TopicPartition(topic, partition) for topic in topics for partition in range(there.get(topic, 0))]
    watermarks = await transport.cluster.watermarks(places) if places else {}
    missing = {at: end for at, (oldest, end) in watermarks.items() if end > oldest}
    if not missing:
        return
    empty = 0
    async with transport.reader({at: watermarks[at][0] for at in missing}) as reader:
        # The last offsets may be markers that are never delivered: several reads without a record mean the end, too.
        while missing and empty < _EMPTY_READS_MAX:
            records = await reader.read(_READ_SECONDS)
            empty = 0 if records else empty + 1
            for record in records:
                at = TopicPartition(record.topic, record.partition)
                if record.offset < watermarks[at][1]:
                    yield record
                if record.offset + 1 >= watermarks[at][1]:
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


def letter_row(record: Delivery) -> dict[str, Any]:
    """What the headers say; a header that is no text is shown as far as it is."""
    headers = dict(record.headers)
    told = {name: _text(headers.get(f"dlq-{name}")) for name in _NAMES}
    agent = told["agent"] or record.topic.removesuffix(_SUFFIX)
    return {
        "id": str(Place(agent, record.partition, record.offset)),
        "agent": agent,
        "reason": told["reason"],
        "error": told["error"],
        "topic": told["topic"],
        "partition": _number(told["partition"]),
        "offset": _number(told["offset"]),
        "attempts": _number(told["attempts"]),
        "first_failed_at": told["first-failed-at"],
        "replays": _number(told["replays"]),
        "flow_id": _text(headers.get(CORRELATION_ID)),
        "event_id": _text(headers.get(ID)),
    }


def group(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By agent and reason: how many, the first and the newest, and the newest one's place."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = str(row["agent"]), str(row["reason"])
        at = str(row["first_failed_at"])
        found = groups.setdefault(key, {"agent": key[0], "reason": key[1], "count": 0, "first": at, "last": at, "example": row["id"]})
        found["count"] += 1
        found["first"] = min(found["first"], at)
        if at >= found["last"]:
            found |= {"last": at, "example": row["id"]}
    return sorted(groups.values(), key=lambda found: (found["agent"], -found["count"]))


async def opened(platform: Platform, record: Delivery) -> dict[str, Any]:
    """The letter with its headers and its value, and for each of the two where reading broke."""
    value = record.value or b""
    told: dict[str, Any] = {
        **letter_row(record),
        "key": _text(record.key),
        "headers": {name: _text(text) for name, text in record.headers if not name.startswith("dlq-")},
        "headers_error": None,
        "schema_id": None,
        "data": None,
        "data_error": None,
        "value_bytes": len(value),
        "value_begins": value[:32].hex(" "),
    }
    try:
        read_envelope(record.headers)
    except Undecodable as error:
        told["headers_error"] = str(error)
    try:
        told["schema_id"] = schema_id_of(record.value)
        reader = await platform.contracts.reader(None, told["schema_id"])
        told["data"] = to_json(reader.decode(value))
    except (Undecodable, ContractRefused) as error:
        told["data_error"] = str(error)
    return told


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
