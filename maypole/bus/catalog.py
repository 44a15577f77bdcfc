"""The catalog: what agents announce on the compacted topic `maypole.catalog`, and the view every process keeps of it.

Records are JSON, keyed `agent/<name>`, `instance/<agent>/<instance>`, `schema/<id>` and `choreography/<hash>`,
so that kcat shows them as they are and compaction keeps the last word on each.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

from maypole.bus.choreography import Choreography, check_declaration, derive_choreography, types_in
from maypole.bus.no_return import check_way_back
from maypole.bus.partition_counts import partition_counts
from maypole.bus.partitioning import partition_of
from maypole.bus.ports import Delivery, Record, Sink, TopicPartition, Transport
from maypole.schemas.avro import Schema
from maypole.schemas.envelope import CONTENT_TYPE, JSON
from maypole.schemas.event import DEADLINE_SECONDS_MAX
from maypole.schemas.topics import CATALOG

log = logging.getLogger("maypole.bus.catalog")

HEARTBEAT_SECONDS: Final = 10.0
INSTANCE_LOST_SECONDS: Final = 35.0
READ_SECONDS: Final = 0.5
"""So long a read waits for more. Many that find nothing mean that there is nothing, where compaction may have removed the end."""
_EMPTY_READS_MAX: Final = 20


@dataclass(slots=True)
class View:
    """The last word on everything announced. Folded from the records in any order of keys."""

    agents: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    instances: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    schemas: dict[int, str] = field(default_factory=dict)
    choreographies: dict[str, Choreography] = field(default_factory=dict)

    def apply(self, record: Delivery) -> None:
        """A record that cannot be read is reported and left out: it is somebody else's, and nothing depends on it."""
        try:
            key = (record.key or b"").decode()
            value = None if record.value is None else json.loads(record.value)
            self._apply(key, value)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            position = {"topic": record.topic, "partition": record.partition, "offset": record.offset, "key": (record.key or b"")[:200]}
            why = f"{type(error).__name__}: {error}"[:300]
            log.warning(
                "catalog.record_refused",
                extra={**position, "expected": "JSON as Maypole writes it", "error": why, "then": "what was known under its key stays"},
            )

    def _apply(self, key: str, value: Any) -> None:
        kind, _, name = key.partition("/")
        if value is not None and not isinstance(value, dict):
            raise TypeError(f"expected a JSON object under {key!r}, found {type(value).__name__}")
        match kind:
            case "agent":
                if value is None:
                    self.agents.pop(name, None)
                else:
                    check_declaration(name, value)  # refused here, once, and not wherever a choreography is derived from it
                    self.agents[name] = value
            case "instance":
                agent, _, instance = name.partition("/")
                if value is None:
                    self.instances.pop((agent, instance), None)
                else:
                    if datetime.fromisoformat(value["seen_at"]).tzinfo is None:
                        raise ValueError(f"expected a time with its zone as seen_at, found {value['seen_at']!r}")
                    self.instances[agent, instance] = value
            case "schema":
                if value is not None:
                    found = Schema.parse(value["schema"]).derived_id
                    if found != int(name):
                        raise ValueError(f"expected the schema with the derived id {name}, found the one with {found}")
                    self.schemas[found] = value["schema"]
            case "choreography":
                if value is not None:
                    choreography = Choreography.parse(json.dumps(value))
                    if choreography.hash != name:
                        raise ValueError(f"expected the choreography with hash {name}, found {choreography.hash}")
                    self.choreographies[name] = choreography
            case "probe":
                pass  # it is read back, and that is all
            case _:
                raise ValueError(f"expected a key of agent/, instance/, schema/ or choreography/, found {key!r}")

    def active(self) -> list[Mapping[str, Any]]:
        """Declarations of the agents that flows wait for."""
        return [declaration for declaration in self.agents.values() if not declaration.get("retired")]

    def deadline_seconds(self, root: str) -> float | None:
        """How long flows that start with this type may take, as agents have declared it; of several words the shortest."""
        declared = (declaration.get("deadlines", {}).get(root) for declaration in self.active())
        return min((float(seconds) for seconds in declared if seconds is not None), default=None)

    def attempt_seconds(self, agent: str, subscription: str) -> float:
        """How long an attempt may take, as the agent declares it now: 0 where it declares nothing, and no longer than any flow may."""
        for declared in self.agents.get(agent, {}).get("subscriptions", ()):
            seconds = declared.get("timeout_seconds")
            if "+".join(sorted(types_in(declared["on"]))) == subscription and isinstance(seconds, int | float) and seconds > 0:
                return float(min(seconds, DEADLINE_SECONDS_MAX))
        return 0.0

    def alive(self, agent: str, now: float) -> set[str]:
        """The instances of an agent that were heard of lately. `now` is in seconds since the epoch."""
        lately = datetime.fromtimestamp(now - INSTANCE_LOST_SECONDS, UTC)
        return {
            instance
            for (name, instance), facts in self.instances.items()
            if name == agent and datetime.fromisoformat(facts["seen_at"]) >= lately
        }


class Catalog:
    """A view kept up to date, and the way to announce. Made by `open_catalog`."""

    def __init__(self, transport: Transport, sink: Sink, partitions: int, read_seconds: float = READ_SECONDS) -> None:
        self.view = View()
        self._read_seconds = read_seconds
        self._transport = transport
        self._sink = sink
        self._next = {TopicPartition(CATALOG, partition): 0 for partition in range(partitions)}
        self._changed = asyncio.Condition()
        self._refreshing = asyncio.Lock()
        self.announcing = asyncio.Lock()
        """Held while an agent compares itself with the others and announces itself."""
        self._next_refresh: asyncio.Task[None] | None = None
        self._empty_reads = 0
        self._failure: BaseException | None = None

    async def refresh(self) -> None:
        """Return once everything that was announced before this call is in the view.

        Callers that wait for the same answer share it, so that a thousand flows started at once ask a few times.
        """
        if self._next_refresh is None:
            self._next_refresh = asyncio.create_task(self._refresh(), name="catalog refresh")
        # A caller that is cancelled must not take the answer away from the others.
        await asyncio.shield(self._next_refresh)

    async def _refresh(self) -> None:
        async with self._refreshing:
            self._next_refresh = None  # who asks from here on may want what is announced after the question below
            await self._catch_up()

    async def _catch_up(self) -> None:
        ends = await self._transport.cluster.watermarks(list(self._next))
        # Offsets that compaction removed at the very end are never delivered: many reads that found nothing mean the end too.
        empty = self._empty_reads

        def current() -> bool:
            return (
                self._failure is not None
                or self._empty_reads >= empty + _EMPTY_READS_MAX
                or all(self._next[at] >= end for at, (_, end) in ends.items())
            )

        async with self._changed:
            await self._changed.wait_for(current)
            behind = [at for at, (_, end) in ends.items() if self._next[at] < end]
        if self._failure is not None:
            raise self._failure
        if behind:
            await self._probe(behind)

    async def _probe(self, partitions: Collection[TopicPartition]) -> None:
        """Nothing comes though something should: compaction has removed the last records, or a leader is away.

        What is written now is read back after all that was there before, so that nobody is told that he announced nothing
        only because his broker was slow.
        """
        keys = {at: _key_on(at.partition, len(self._next)) for at in partitions}
        receipts = await self._sink.publish([Record(CATALOG, key, b"{}", ((CONTENT_TYPE, JSON),)) for key in keys.values()])
        written = {TopicPartition(CATALOG, receipt.partition): receipt.offset for receipt in receipts}
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._failure is not None or all(self._next[at] > offset for at, offset in written.items())
            )
        if self._failure is not None:
            raise self._failure

    async def choreography(self, choreography_hash: str) -> Choreography | None:
        """The choreography of this hash; asks the log once more before it says that there is none."""
        found = self.view.choreographies.get(choreography_hash)
        if found is None:
            await self.refresh()
            found = self.view.choreographies.get(choreography_hash)
        return found

    async def pin(self, root: str) -> Choreography:
        """The choreography for flows that start with this type now, recorded under its hash before anybody refers to it.

        Raises `NoWayBack` when a flow of it could be left half done.
        """
        choreography = derive_choreography(root, self.view.active())
        if choreography.hash not in self.view.choreographies:
            check_way_back(choreography)
            await self._write({f"choreography/{choreography.hash}": choreography.text})
            self.view.choreographies[choreography.hash] = choreography
        return choreography

    async def announce_schemas(self, schemas: Mapping[int, str]) -> None:
        """From here on any process can read what is written under these ids."""
        missing = {
            f"schema/{schema_id}": json.dumps({"schema": text})
            for schema_id, text in schemas.items()
            if self.view.schemas.get(schema_id) != text
        }
        if missing:
            await self._write(missing)
            self.view.schemas.update(schemas)

    async def announce(self, declaration: Mapping[str, Any], schemas: Mapping[int, str]) -> None:
        """Schemas first: whoever sees the agent can read its events."""
        await self.announce_schemas(schemas)
        if self.view.agents.get(declaration["name"]) != declaration:
            await self._write({f"agent/{declaration['name']}": json.dumps(declaration, sort_keys=True)})
            self.view.agents[declaration["name"]] = declaration

    async def retire(self, agent: str) -> None:
        """Flows pinned from now on do not wait for this agent. Raises KeyError when there is no such agent."""
        retired = {**self.view.agents[agent], "retired": True}
        await self._write({f"agent/{agent}": json.dumps(retired, sort_keys=True)})
        self.view.agents[agent] = retired

    async def beat(self, agent: str, instance: str, facts: Mapping[str, Any] | None) -> None:
        """Say that an instance is alive; None: it has stopped."""
        await self._write({f"instance/{agent}/{instance}": None if facts is None else json.dumps(facts, sort_keys=True)})

    async def _write(self, values: Mapping[str, str | None]) -> None:
        headers = ((CONTENT_TYPE, JSON),)
        records = [Record(CATALOG, key.encode(), None if value is None else value.encode(), headers) for key, value in values.items()]
        await self._sink.publish(records)

    async def follow(self) -> None:
        """Keep the view up to date until cancelled."""
        try:
            async with self._transport.reader(dict(self._next)) as reader:
                while True:
                    records = await reader.read(self._read_seconds)
                    await self._take(records)
        except Exception as error:
            log.error("catalog.not_followed", extra={"error": f"{type(error).__name__}: {error}"})
            self._failure = error
            async with self._changed:
                self._changed.notify_all()
            raise

    async def _take(self, records: Iterable[Delivery]) -> None:
        some = False
        for record in records:
            some = True
            self.view.apply(record)
            self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1
        self._empty_reads += not some
        async with self._changed:
            self._changed.notify_all()


def _key_on(partition: int, partitions: int) -> bytes:
    """A probe's key that lies on this partition."""
    return next(key for number in count() if partition_of(key := f"probe/{number}".encode(), partitions) == partition)


@asynccontextmanager
async def open_catalog(transport: Transport, sink: Sink, read_seconds: float = READ_SECONDS) -> AsyncIterator[Catalog]:
    """A catalog that has read everything announced so far. The topic must exist."""
    partitions = (await partition_counts(transport.cluster, [CATALOG]))[CATALOG]
    catalog = Catalog(transport, sink, partitions, read_seconds)
    following = asyncio.create_task(catalog.follow(), name="catalog")
    try:
        await catalog.refresh()
        yield catalog
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
