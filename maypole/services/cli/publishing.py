"""From a type's name and JSON to a published event: by its class where there is one, else by its schema alone."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from maypole.bus import Bus, Published
from maypole.bus.composition import Platform
from maypole.schemas.codec import refusal
from maypole.schemas.errors import ContractRefused
from maypole.services.cli.event_types import EventType
from maypole.services.cli.examples import example
from maypole.services.cli.json_values import encode_json
from maypole.services.cli.problems import ExitCode, Problem

PUBLISH_SECONDS: Final = 20.0
"""Agents wait through an outage for as long as it takes; somebody at a terminal wants to know."""
_SHOWN_MAX: Final = 400


def read_data(given: str | None) -> str:
    """JSON itself, `@FILE`, or `-` for standard input; nothing is an empty object."""
    if given is None:
        return "{}"
    if given == "-":
        return sys.stdin.read()
    if not given.startswith("@"):
        return given
    path = Path(given[1:])
    try:
        return path.read_text()
    except FileNotFoundError:
        raise Problem(f"--data: expected a file of JSON at {path}, found none", ExitCode.USAGE) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"--data: expected a file of JSON in UTF-8 at {path}, found {error}", ExitCode.USAGE) from None


def parse_data(text: str) -> object:
    """Raises `Problem` pointing at the place that is no JSON."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        place = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        found = text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        message = f"--data: expected JSON, found{place}: {reason}\n  {found.strip() or '(nothing)'}"
        raise Problem(message, ExitCode.USAGE, """--data '{"field": "value"}'""") from None


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
    except TimeoutError:
        raise Problem(
            f"expected the broker{' and the schema registry' if platform.settings.registry_url else ''} to take {event_type.name} within "
            f"{PUBLISH_SECONDS:g} s, found no answer; the event may still have been written",
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
            return await bus.publish(event, business_key=business_key, idempotency_key=idempotency_key, deadline_seconds=deadline_seconds)
        schema_id = await platform.contracts.id_of(event_type.name, event_type.schema)
        value = encode_json(event_type.schema, schema_id, data, event_type.name)
        return await bus.publish_value(
            event_type.name, value, business_key=business_key, idempotency_key=idempotency_key, deadline_seconds=deadline_seconds
        )
    except ValidationError as error:
        raise _refused(event_type, refusal(error, event_type.name)) from None
    except ContractRefused as error:
        raise _refused(event_type, error) from None


def _refused(event_type: EventType, error: ContractRefused) -> Problem:
    return Problem(str(error), ExitCode.USAGE, f"--data '{example(event_type.schema)}'\n       maypole schemas show {event_type.name}")


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")
