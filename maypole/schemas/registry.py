"""Where schema ids come from: the port, and the way that needs no registry."""

from __future__ import annotations

from typing import Protocol

from maypole.schemas.avro import Schema
from maypole.schemas.errors import UnknownSchema


class Registry(Protocol):
    """Gives an id to a schema and a schema to an id. Both are for ever: an answer may be cached without limit.

    Safe to repeat and to call concurrently; cancelling a call leaves nothing half done. `RegistryUnreachable` passes and the
    caller retries; `RegistryRefused` and `UnknownSchema` do not pass by themselves. `UnknownSchema` is about the id, and
    `RegistryRefused` is not: a value's reader waits until somebody has mended the address or the rights.
    """

    async def id_of(self, subject: str, schema: Schema) -> int:
        """The id under which `subject` (`<topic>-value`) writes `schema`. Registers it if it is new. May wait for the network."""
        ...

    async def schema_of(self, schema_id: int) -> Schema:
        """The schema of an id. Raises `UnknownSchema`. May wait for the network, once per id."""
        ...


class DerivedRegistry:
    """Ids derived from the schemas themselves. Knows what this process declares and what was announced in the catalog."""

    def __init__(self) -> None:
        self._schemas: dict[int, Schema] = {}

    def announce(self, schema: Schema) -> int:
        """Make a schema known and return its id. Two schemas that share an id are refused: nothing could tell them apart."""
        known = self._schemas.setdefault(schema.derived_id, schema)
        if known != schema:
            message = (
                f"two schemas derive the id {schema.derived_id}: {known.fullname} and {schema.fullname}; "
                "change either (a field's name is enough), or use a schema registry"
            )
            raise ValueError(message)
        return schema.derived_id

    async def id_of(self, subject: str, schema: Schema) -> int:
        return self.announce(schema)

    async def schema_of(self, schema_id: int) -> Schema:
        return self.known(schema_id)

    def known(self, schema_id: int) -> Schema:
        """The same without waiting, since nothing here ever waits."""
        schema = self._schemas.get(schema_id)
        if schema is None:
            raise UnknownSchema(schema_id, "this process or the catalog")
        return schema


def subject_of(topic: str) -> str:
    """The subject of a topic's values, as Confluent's serializers name it."""
    return f"{topic}-value"
