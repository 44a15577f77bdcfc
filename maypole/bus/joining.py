"""Declaring what a subscription waits for: one event, or all of several, and for how long."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from maypole.bus.requirements import Requirement
from maypole.schemas.event import Event

WITHIN_MS_MAX: Final = 30 * 24 * 60 * 60 * 1000
"""Longer than any flow lives: the journal keeps a flow for as long."""
_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_WITHIN: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h)", re.ASCII)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Several events of one flow that are handled together; in the order in which the handler takes them."""

    events: tuple[type[Event] | str, ...]


def all_of(*events: type[Event] | str) -> AllOf:
    """Subscribe to all of these together: `@agent.on(all_of(ScoreReady, IncomeVerified), within="30s")`.

    The handler is called once, when the last of them has come, with one event for each, in this order. What cannot work is
    refused by `Agent.on`.
    """
    return AllOf(events)


@dataclass(frozen=True, slots=True)
class Trigger:
    """An event that a subscription waits for.

    `event_class` is None where it is named by its topic: then it comes as a read-only mapping.
    """

    event_type: str
    event_class: type[Event] | None
    requires: tuple[Requirement, ...] = ()


Require = Requirement | Sequence[Requirement] | Mapping[type[Event] | str, Requirement | Sequence[Requirement]]
"""What a subscriber requires of its event; of the parts of a join by part."""


def required(require: Require, part: type[Event] | str | None) -> tuple[Requirement, ...]:
    """What is required of one part of a join; None: of the only event there is."""
    found: Any = require
    if isinstance(require, Mapping):
        found = require.get(part, ()) if part is not None else ()
    elif part is not None:
        found = ()
    return (found,) if isinstance(found, Requirement) else tuple(found)


def milliseconds(text: object) -> int:
    """`30s`, `500ms`, `1.5m`, `1h`. Raises ValueError saying what was expected."""
    match = _WITHIN.fullmatch(text) if isinstance(text, str) else None
    found = 0 if match is None else round(float(match[1]) * _UNITS_MS[match[2]])
    if not 1 <= found <= WITHIN_MS_MAX:
        raise ValueError(f"expected a time like '500ms', '30s', '5m' or '1h', from 1ms to 30 days, found {text!r}")
    return found


def doubled(names: Iterable[str]) -> str | None:
    """The first name that comes a second time."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
