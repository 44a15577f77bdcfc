"""The schemas of one process: which id an event class is written under, and how a value of any id is read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from maypole.bus.catalog import Catalog
from maypole.bus.ports import BrokerUnreachable
from maypole.schemas.avro import DERIVED_ID_MIN, Schema, schema_of
from maypole.schemas.codec import Reader, Writer
from maypole.schemas.commands import COMMANDS
from maypole.schemas.confluent import RegistryRefused, RegistryUnreachable
from maypole.schemas.errors import Undecodable, UnknownSchema, UnsafeSchema
from maypole.schemas.event import Event
from maypole.schemas.journal import RECORDS
from maypole.schemas.registry import DerivedRegistry, Registry

log = logging.getLogger("maypole.bus.contracts")

T = TypeVar("T")

REGISTRY_RETRY_SECONDS: Final = 1.0


class Contracts:
    """Writers by class and readers by (class, id), each made once.

    Ids from 2^30 are derived from the schema, and the catalog tells the schema; smaller ones are the registry's.
    """

    def __init__(self, catalog: Catalog, registry: Registry | None, sleep: Callable[[float], Any] = asyncio.sleep) -> None:
        self._catalog = catalog
        self._registry = registry
        self._derived = DerivedRegistry()
        for record in (*RECORDS, *COMMANDS):
            self._derived.announce(schema_of(record))
        self._writers: dict[type[Event], Writer[Any]] = {}
        self._readers: dict[tuple[type[Event] | None, int], Reader[Any]] = {}
        self._sleep = sleep

    async def writer(self, event: type[Event]) -> Writer[Any]:
        """Registers the schema where there is a registry; waits for one that is away. Raises `RegistryRefused`."""
        writer = self._writers.get(event)
        if writer is None:
            schema = schema_of(event)
            self._derived.announce(schema)
            writer = self._writers[event] = Writer(event, await self.id_of(event.event_type, schema))
        return writer

    async def id_of(self, event_type: str, schema: Schema) -> int:
        return await self._patiently(lambda: self.id_at_once(event_type, schema), RegistryUnreachable)

    async def id_at_once(self, event_type: str, schema: Schema) -> int:
        """As `id_of`, for somebody who waits for the answer. Raises `RegistryUnreachable`."""
        if self._registry is None or event_type.startswith("maypole."):
            return schema.derived_id
        return await self._registry.id_of(f"{event_type}-value", schema)

    async def reader(self, event: type[Event] | None, schema_id: int) -> Reader[Any]:
        """Raises `UnknownSchema` or `Undecodable` when nobody can tell the schema of this id, or it is not a safe one."""
        reader = self._readers.get((event, schema_id))
        if reader is None:
            try:
                reader = self._readers[event, schema_id] = Reader(await self.schema(schema_id), event)
            except Undecodable:
                raise
            except (UnsafeSchema, ValueError) as error:
                raise Undecodable(f"schema {schema_id}: {error}") from error
        return reader

    async def schema(self, schema_id: int) -> Schema:
        if schema_id < DERIVED_ID_MIN:
            if self._registry is None:
                raise UnknownSchema(schema_id, "anybody here: it is a schema registry's, and SCHEMA_REGISTRY_URL is not set")
            registry = self._registry
            # A record is not to blame for a registry that answers nobody: it waits as it does for one that is away.
            return await self._patiently(lambda: registry.schema_of(schema_id), RegistryUnreachable, RegistryRefused)
        self._learn(schema_id)
        try:
            return await self._derived.schema_of(schema_id)
        except UnknownSchema:
            # Announced a moment ago, perhaps: ask the log once more before saying that nobody knows it.
            await self._patiently(self._catalog.refresh, BrokerUnreachable)
            self._learn(schema_id)
            return await self._derived.schema_of(schema_id)

    def _learn(self, schema_id: int) -> None:
        text = self._catalog.view.schemas.get(schema_id)
        if text is not None:
            self._derived.announce(Schema.parse(text))

    async def _patiently(self, ask: Callable[[], Awaitable[T]], *passing: type[Exception]) -> T:
        """Waits while the registry or the broker is away, and says so once; what was answered is final."""
        told = False
        while True:
            try:
                return await ask()
            except passing as error:
                if not told:
                    log.warning("contracts.answer_awaited", extra={"error": str(error)})
                told = True
                await self._sleep(REGISTRY_RETRY_SECONDS)


def announced_schemas(events: Iterable[type[Event]]) -> tuple[Mapping[str, int], Mapping[int, str]]:
    """What an agent puts into the catalog: the derived schema id of each of its event types, and the schemas themselves."""
    schemas = {event.event_type: schema_of(event) for event in events}
    return {name: schema.derived_id for name, schema in schemas.items()}, {schema.derived_id: schema.text for schema in schemas.values()}
