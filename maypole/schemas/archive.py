"""The committed schemas: `avro/<type>/<n>.avsc`, every version kept, derived from the event classes that ship with Maypole."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

import maypole.schemas
from maypole.schemas.avro import Schema, schema_of
from maypole.schemas.compatibility import Incompatibility, explain_all
from maypole.schemas.errors import UnsafeSchema
from maypole.schemas.event import Event

FOLDER: Final = Path(__file__).parent / "avro"


@dataclass(frozen=True, slots=True)
class Version:
    """One committed schema of a type; `number` counts from 1."""

    event_type: str
    number: int
    path: Path
    schema: Schema


@dataclass(frozen=True, slots=True)
class Change:
    """What has to happen to the archive for one type: a new file, or a refusal with its reasons."""

    event_type: str
    path: Path
    text: str
    refusals: tuple[tuple[str, Incompatibility], ...]


def shipped_events() -> list[type[Event]]:
    """Every event class of the modules of `maypole.schemas`, by type."""
    found: dict[str, type[Event]] = {}
    for module in pkgutil.iter_modules(maypole.schemas.__path__, f"{maypole.schemas.__name__}."):
        if module.name.rpartition(".")[2].startswith("_"):
            continue
        for declared in vars(import_module(module.name)).values():
            if not isinstance(declared, type) or not issubclass(declared, Event) or declared.__module__ != module.name or declared is Event:
                continue
            other = found.setdefault(declared.event_type, declared)
            if other is not declared:
                message = f"{declared.event_type} is declared twice, in {other.__module__} and in {module.name}"
                raise UnsafeSchema(message)
    return [found[event_type] for event_type in sorted(found)]


def versions(event_type: str, folder: Path = FOLDER) -> list[Version]:
    """The committed schemas of a type, oldest first. Raises `UnsafeSchema` naming a file that cannot be read."""
    return sorted(_versions(event_type, folder / event_type), key=lambda version: version.number)


def changes(events: Iterable[type[Event]], folder: Path = FOLDER) -> list[Change]:
    """What the archive lacks. Nothing is written."""
    return [change for event in events if (change := _change(event, folder)) is not None]


def strays(events: Iterable[type[Event]], folder: Path = FOLDER) -> list[str]:
    """Types that the archive has and no class declares any more; their files stay, because their data does."""
    declared = {event.event_type for event in events}
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in declared) if folder.is_dir() else []


def write(change: Change) -> None:
    change.path.parent.mkdir(parents=True, exist_ok=True)
    change.path.write_text(change.text, encoding="utf-8")


def _versions(event_type: str, folder: Path) -> Iterator[Version]:
    for path in folder.glob("*.avsc"):
        if not path.stem.isdigit():
            message = f"{path}: expected a file named by its version, like 1.avsc"
            raise UnsafeSchema(message)
        try:
            schema = Schema.parse(path.read_text(encoding="utf-8"))
        except UnsafeSchema as error:
            message = f"{path}: {error}"
            raise UnsafeSchema(message) from error
        yield Version(event_type, int(path.stem), path, schema)


def _change(event: type[Event], folder: Path) -> Change | None:
    committed = versions(event.event_type, folder)
    schema = schema_of(event)
    text = json.dumps(event.avro_definition, indent=2, ensure_ascii=False) + "\n"
    if committed and committed[-1].schema == schema:
        last = committed[-1].path
        # Documentation is no part of the contract: it is brought up to date in the newest file.
        return Change(event.event_type, last, text, ()) if last.read_text(encoding="utf-8") != text else None
    number = committed[-1].number + 1 if committed else 1
    refusals = explain_all(schema, ((version.path.name, version.schema) for version in committed))
    return Change(event.event_type, folder / event.event_type / f"{number}.avsc", text, tuple(refusals))
