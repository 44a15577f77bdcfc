"""Every event type that can be told about: those that ship with Maypole, and those that agents announced in the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING

from maypole.schemas.archive import shipped_events
from maypole.schemas.avro import Schema, schema_of
from maypole.schemas.event import Event
from maypole.services.cli.problems import ExitCode, Problem

if TYPE_CHECKING:
    from maypole.bus.catalog import View

_PLATFORM = "maypole."


@dataclass(frozen=True, slots=True)
class EventType:
    """`event_class` is None where only the catalog knows the type. `declared_by` are the agents that announced it."""

    name: str
    schema: Schema
    event_class: type[Event] | None
    declared_by: tuple[str, ...]
    others: tuple[Schema, ...] = ()
    """Other schemas that agents announced for the same type."""


@cache
def shipped() -> Mapping[str, type[Event]]:
    """The domain events of `maypole.schemas`; the platform's own records are not for publishing."""
    return {event.event_type: event for event in shipped_events() if not event.event_type.startswith(_PLATFORM)}


def known_types(view: View | None) -> dict[str, EventType]:
    """By name, sorted. Of several announced schemas the one of an agent that subscribes to the type comes first: it must be read."""
    from maypole.bus.choreography import types_in

    announced: dict[str, list[tuple[bool, str, Schema]]] = {}
    for declaration in view.agents.values() if view is not None else ():
        reads = {event for subscription in declaration["subscriptions"] for event in types_in(subscription["on"])}
        for name, schema_id in declaration.get("schemas", {}).items():
            text = view.schemas.get(schema_id) if view is not None else None
            if text is not None and not name.startswith(_PLATFORM):
                announced.setdefault(name, []).append((name not in reads, declaration["name"], Schema.parse(text)))
    types: dict[str, EventType] = {}
    for name in sorted({*shipped(), *announced}):
        found = sorted(announced.get(name, ()), key=lambda entry: entry[:2])
        event_class = shipped().get(name)
        schemas = list(dict.fromkeys(([schema_of(event_class)] if event_class else []) + [schema for _, _, schema in found]))
        types[name] = EventType(name, schemas[0], event_class, tuple(sorted(agent for _, agent, _ in found)), tuple(schemas[1:]))
    return types


def type_called(name: str, view: View | None) -> EventType:
    """Raises `Problem` with the names that come near."""
    from maypole.bus.choreography import types_in

    types = known_types(view)
    if name in types:
        return types[name]
    near = get_close_matches(name, types, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(types)}"
    active = view.active() if view is not None else []
    subscribers = [each["name"] for each in active if any(name in types_in(subscription["on"]) for subscription in each["subscriptions"])]
    if subscribers:
        meant = f"{', '.join(subscribers)} subscribes to it by name, but no agent declares its fields; {meant}"
    raise Problem(f"expected a known event type, found {name!r}: {meant}", ExitCode.NOT_FOUND, "maypole schemas list")
