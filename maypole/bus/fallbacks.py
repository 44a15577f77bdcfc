"""What a subscription does while its breaker is open, as data: chosen when it is declared, performed by the delivery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from maypole.schemas.event import Event


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait: no attempt is burnt, offsets stay, the lag grows where everybody sees it."""

    def declaration(self) -> dict[str, Any]:
        return {"do": "pause"}


@dataclass(frozen=True, slots=True)
class Skip:
    """Go on without: the step completes with `event`, which says so to whoever waits for it; None: without any output."""

    event: Event | None = None

    def declaration(self) -> dict[str, Any]:
        return {"do": "skip", "event": None if self.event is None else type(self.event).event_type}


@dataclass(frozen=True, slots=True)
class Cached:
    """The last outputs for the same business key, marked with their age. Older ones than `age_seconds_max`, or none: as `otherwise`."""

    age_seconds_max: float | None = None
    otherwise: Pause | Skip | Default | Alert = Pause()

    def __post_init__(self) -> None:
        if self.age_seconds_max is not None and self.age_seconds_max <= 0:
            raise ValueError(f"expected age_seconds_max > 0 or None, found {self.age_seconds_max}")

    def declaration(self) -> dict[str, Any]:
        return {"do": "cached", "age_seconds_max": self.age_seconds_max, "otherwise": self.otherwise.declaration()}


@dataclass(frozen=True, slots=True)
class Default:
    """The same outputs for everybody."""

    events: tuple[Event, ...]

    def __init__(self, *events: Event) -> None:
        if not events:
            raise ValueError("expected at least one event as default, found none; Skip() emits nothing")
        object.__setattr__(self, "events", events)

    def declaration(self) -> dict[str, Any]:
        return {"do": "default", "events": [type(event).event_type for event in self.events]}


@dataclass(frozen=True, slots=True)
class Alert:
    """Go on without, and call somebody: `event` is emitted, and posted as JSON to `webhook` if there is one."""

    event: Event
    webhook: str | None = None

    def __post_init__(self) -> None:
        if self.webhook is not None and not self.webhook.startswith(("http://", "https://")):
            raise ValueError(f"expected a webhook that begins with http:// or https://, found {self.webhook!r}")

    def declaration(self) -> dict[str, Any]:
        # The address may hold a secret, and the catalog is for everybody to read.
        return {"do": "alert", "event": type(self.event).event_type, "webhook": self.webhook is not None}


Fallback: TypeAlias = Pause | Skip | Cached | Default | Alert


def emitted_by(fallback: Fallback) -> tuple[Event, ...]:
    """The events that it brings along; those of `Cached` are what it does otherwise."""
    match fallback:
        case Cached():
            return emitted_by(fallback.otherwise)
        case Default():
            return fallback.events
        case Alert():
            return (fallback.event,)
        case Skip(event) if event is not None:
            return (event,)
    return ()


def emits_nothing(fallback: Fallback) -> bool:
    """Whether it may go on without any output."""
    return (isinstance(fallback, Skip) and fallback.event is None) or (isinstance(fallback, Cached) and emits_nothing(fallback.otherwise))


def degrades(fallback: Fallback) -> bool:
    """Whether a flow that was served so did not get the real thing, and is marked degraded."""
    return not isinstance(fallback, Pause)
