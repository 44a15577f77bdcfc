"""Verdicts on contracts, as rows: against the committed versions, against other agents, against a registry."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from maypole.schemas.archive import versions
from maypole.schemas.avro import Schema
from maypole.schemas.compatibility import explain
from maypole.schemas.confluent import ConfluentRegistry, NoRegistry, RegistryRefused
from maypole.schemas.nodes import MISSING, Record, title
from maypole.schemas.registry import subject_of
from maypole.services.cli.event_types import EventType

Row = dict[str, Any]


def against_archive(types: Iterable[EventType]) -> list[Row]:
    """Every committed version of a type that ships with Maypole."""
    rows = []
    for found in types:
        if found.event_class is None:
            continue
        reasons = [
            f"{each.path.name}: {fault}" for each in versions(found.name) for fault in explain(reader=found.schema, writer=each.schema)
        ]
        rows.append(_verdict(found.name, "committed versions", reasons))
    return rows


def against_agents(types: Iterable[EventType]) -> list[Row]:
    """Every pair of schemas that agents announced for one type, both ways: any of them may read what another wrote."""
    rows = []
    for found in types:
        schemas = [found.schema, *found.others]
        if len(schemas) > 1 or found.declared_by:
            reasons = [str(fault) for a in schemas for b in schemas if a != b for fault in explain(reader=a, writer=b)]
            rows.append(_verdict(found.name, f"agents ({', '.join(found.declared_by)})", list(dict.fromkeys(reasons))))
    return rows


async def against_registry(url: str, types: Iterable[EventType]) -> list[Row]:
    async with ConfluentRegistry(url) as registry:
        return [_verdict(found.name, "registry", await registry.check(subject_of(found.name), found.schema)) for found in types]


async def registered(url: str, types: Iterable[EventType]) -> list[Row]:
    """Register each; one that is refused does not keep the others back."""
    rows: list[Row] = []
    async with ConfluentRegistry(url) as registry:
        for found in types:
            subject = subject_of(found.name)
            row: Row = {"type": found.name, "subject": subject, "id": None, "verdict": "registered", "reasons": []}
            try:
                # The rule first: a version that breaks it must not be the one that gets in before it.
                await registry.require(subject)
                row["id"] = await registry.id_of(subject, found.schema)
            except NoRegistry:
                raise
            except RegistryRefused as error:
                row |= {"verdict": "refused", "reasons": list(error.reasons)}
            rows.append(row)
    return rows


def field_rows(schema: Schema) -> list[Row]:
    if not isinstance(schema.node, Record):
        return []
    docs = {field["name"]: field.get("doc") for field in schema.definition.get("fields", ())}
    return [
        {
            "field": field.name,
            "type": title(field.type).replace("union of null, ", "optional ").replace(", null", ""),
            "default": None if field.default is MISSING else json.dumps(field.default),
            "doc": docs.get(field.name),
        }
        for field in schema.node.fields
    ]


def _verdict(event_type: str, against: str, reasons: Sequence[str]) -> Row:
    return {"type": event_type, "against": against, "verdict": "refused" if reasons else "ok", "reasons": list(reasons)}
