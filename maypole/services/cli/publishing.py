"""From a type's name and JSON to a published event: by its class where there is one, else by its schema alone."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from maypole.bus import Bus, Published
from maypole.bus.composition import Platform
from maypole.bus.ports import PublishRefused
from maypole.schemas.codec import refusal
from maypole.schemas.confluent import RegistryUnreachable
from maypole.schemas.errors import ContractRefused, TooLarge
from maypole.services.cli.event_types import EventType
from maypole.services.cli.examples import example
from maypole.services.cli.interrupts import stopping_with
from maypole.services.cli.json_values import encode_json
from maypole.services.cli.problems import ExitCode, Problem

PUBLISH_SECONDS: Final = 20.0
"""Agents wait through an outage for as long as it takes; somebody at a terminal wants to know."""
_SHOWN_MAX: Final = 400
_A_REFERENCE: Final = "put what is large where its readers find it (a file, a bucket), and publish its address"
_DEPTH_MAX: Final = 64
"""Lists and objects inside each other. No schema of an event is recursive, so none needs more."""


def read_data(given: str | None) -> str:
    """JSON itself, `@FILE`, or `-` for standard input; nothing is an empty object."""
    if given is None:
        return "{}"
    if given == "-":
        with stopping_with(None):
            return _text(sys.stdin.buffer.read(), "on standard input")
    if not given.startswith("@"):
        return given
    path = Path(given[1:])
    try:
        return _text(path.read_bytes(), f"at {path}")
    except (FileNotFoundError, IsADirectoryError):
        found = "a folder" if path.is_dir() else "none"
        raise Problem(f"--data: expected a file of JSON at {path}, found {found}", ExitCode.USAGE) from None
    except OSError as error:
        raise Problem(
            f"--data: expected a file of JSON at {path}, found that it cannot be read: {error.strerror}", ExitCode.USAGE
        ) from None


def _text(found: bytes, where: str) -> str:
    """JSON is UTF-8, whatever the terminal speaks; some editors put a mark before it."""
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"--data: expected JSON in UTF-8 {where}, found the byte {found[error.start]:#04x} at {error.start}"
        raise Problem(message, ExitCode.USAGE) from None


def parse_data(text: str) -> object:
    """Raises `Problem` pointing at the place that is no JSON."""
    try:
        data = json.loads(text, parse_constant=_no_number, object_pairs_hook=_object)
        _require_shallow(data)
        _require_text(data)
    except RecursionError:
        message = f"--data: expected JSON of at most {_DEPTH_MAX} lists and objects inside each other, found more"
        raise Problem(message, ExitCode.USAGE) from None
    except ValueError as error:
        place = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        found = text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        message = f"--data: expected JSON, found{place}: {reason}\n  {found.strip() or '(nothing)'}"
        raise Problem(message, ExitCode.USAGE, """--data '{"field": "value"}'""") from None
    return data


async def publish(
    bus: Bus,
    platform: Platform,
    event_type: EventType,
    data: object,
    *,
    business_key: str | None = None,
    idempotency_key: str | None = None,
    deadline_seconds: float | None = None,
) -> Published:
    """Raises `Problem` with the broken rule and an example when the data does not fit the contract."""
    try:
        async with asyncio.timeout(PUBLISH_SECONDS):
            return await _published(bus, platform, event_type, data, business_key, idempotency_key, deadline_seconds)
    except RegistryUnreachable as error:
        hint = "start it, or unset SCHEMA_REGISTRY_URL where agents do without one; maypole doctor"
        raise Problem(f"{error}; nothing was published", ExitCode.FAILED, hint) from error
    except TimeoutError:
        raise Problem(
            f"expected the broker to take {event_type.name} within {PUBLISH_SECONDS:g} s, found no answer; "
            f"the event may still have been written",
            ExitCode.TIMED_OUT,
            "maypole doctor, then publish again with the same --idempotency-key" if idempotency_key else "maypole doctor",
        ) from None


async def _published(
    bus: Bus,
    platform: Platform,
    event_type: EventType,
    data: object,
    business_key: str | None,
    idempotency_key: str | None,
    deadline_seconds: float | None,
) -> Published:
    try:
        if event_type.event_class is not None:
            event = event_type.event_class.model_validate_json(json.dumps(data))
            # Agents wait for a registry that is away; asked at once and first, it is known that nothing was written.
            await platform.contracts.id_at_once(event_type.name, event_type.schema)
            return await bus.publish(event, business_key=business_key, idempotency_key=idempotency_key, deadline_seconds=deadline_seconds)
        schema_id = await platform.contracts.id_at_once(event_type.name, event_type.schema)
        value = encode_json(event_type.schema, schema_id, data, event_type.name)
        return await bus.publish_value(
            event_type.name, value, business_key=business_key, idempotency_key=idempotency_key, deadline_seconds=deadline_seconds
        )
    except ValidationError as error:
        raise _refused(event_type, refusal(error, event_type.name)) from None
    except TooLarge as error:
        raise Problem(str(error), ExitCode.USAGE, _A_REFERENCE) from None
    except ContractRefused as error:
        raise _refused(event_type, error) from None
    except PublishRefused as error:
        most = (await platform.transport.cluster.topic_config(error.topic)).get("max.message.bytes")
        raise Problem(str(error), ExitCode.FAILED, None if most is None else _told_limit(error.topic, most)) from error


def _told_limit(topic: str, bytes_max: str) -> str:
    return (
        f"where it was too large: {topic} takes records of {bytes_max} bytes at most (its max.message.bytes); raise that, or {_A_REFERENCE}"
    )


def _refused(event_type: EventType, error: ContractRefused) -> Problem:
    return Problem(str(error), ExitCode.USAGE, f"--data '{example(event_type.schema)}'\n       maypole schemas show {event_type.name}")


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Of two values under one key JSON's readers keep either: nobody can tell which was meant."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} twice in one object")
        found[key] = value
    return found


def _require_shallow(data: object) -> None:
    """Raises `RecursionError`, as whatever handles the data next would."""
    level: list[object] = [data]
    for _ in range(_DEPTH_MAX + 1):
        level = [part for each in level for part in _parts(each)]
        if not level:
            return
    raise RecursionError


def _require_text(data: object) -> None:
    """Half of a surrogate pair can be written in JSON, and in no other encoding."""
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair, {error.object[error.start]!r}, which is no text") from None


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
