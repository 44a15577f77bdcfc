"""A subscription: what an agent reacts to, how, and what may come of it. A value, made when an agent is declared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final

from maypole.bus.breaker import Breaker
from maypole.bus.joining import Trigger
from maypole.bus.retry import Retry
from maypole.schemas.event import Event

Handler = Callable[..., Awaitable[object] | object]

UNDO_RETRY: Final = Retry(8, (1, 5, 15, 30, 60))
"""Some minutes: what cannot be undone by then waits for a person."""


class WrongDeclaration(TypeError):
    """An agent's declaration cannot work. Names the agent, the handler, what was expected and what was found."""


class Kind(StrEnum):
    """What a subscription does beside its events."""

    EVENTS = "events"
    """Nothing; but its events may differ when it is repeated, as a language model's do."""
    PURE = "pure"
    """Nothing; and repeating it gives the same events."""
    UNDO = "undo"
    """It acts on the outside, and says how that is taken back."""
    PIVOT = "pivot"
    """It acts on the outside, and there is no way back."""
    RETRIABLE = "retriable"
    """It acts on the outside after a pivot, and is repeated until it succeeds."""

    @property
    def acts_outside(self) -> bool:
        return self in (Kind.UNDO, Kind.PIVOT, Kind.RETRIABLE)


class UndoWants(Enum):
    """What an undo may ask for beside the event of its step."""

    EMITTED = "what the step emitted"
    CONTEXT = "the context of the step"


@dataclass(frozen=True, slots=True)
class Subscription:
    """`triggers`: the event that it handles; of a join its parts, in the order in which the handler takes them."""

    triggers: tuple[Trigger, ...]
    handler: Handler
    emits: tuple[type[Event], ...]
    kind: Kind
    wants_context: bool
    is_async: bool
    timeout_seconds: float
    retry: Retry
    repeats: bool = True
    """Whether an attempt of unknown fate may be followed by another one."""
    breaker: Breaker | None = None
    undo: Handler | None = None
    undo_wants: tuple[UndoWants, ...] = ()
    """What the undo takes beside the event, in its order."""
    undo_retry: Retry = UNDO_RETRY
    verify: Handler | None = None
    """Says whether the effect is gone."""
    verify_wants: tuple[UndoWants, ...] = ()
    undo_copes: bool = True
    """Whether it can do without knowing what was emitted: of a step that was cut off nobody can tell."""
    may_emit_nothing: bool = True
    """Whether None, or no event at all, is among what its annotation says."""
    emits_several: bool = False
    """Whether its annotation speaks of a list or tuple."""
    optional: bool = False
    """Whether its flow goes on without it when it failed and changed nothing."""
    within_ms: int | None = None
    """Of a join: how long it waits once its first part is there. None: as long as the flow lives."""
    expiry: Subscription | None = None
    """The same subscription with the handler that is called when that time is up."""

    @property
    def event_types(self) -> tuple[str, ...]:
        return tuple(trigger.event_type for trigger in self.triggers)

    @property
    def is_join(self) -> bool:
        return len(self.triggers) > 1

    @property
    def keeps_row(self) -> bool:
        """Whether the ledger remembers its steps. Of pure ones those of a join, whose parts lie there anyway, and optional ones:
        a person may give them another chance, with what they were given.
        """
        return self.kind is not Kind.PURE or self.is_join or self.optional

    @property
    def name(self) -> str:
        """Part of every step's identity: renaming the handler's function changes nothing, nor does another order of a join's parts."""
        return "+".join(sorted(self.event_types)) if self.is_join else self.triggers[0].event_type

    def declaration(self) -> dict[str, Any]:
        declared = {
            "on": sorted(self.event_types) if self.is_join else self.name,
            "emits": sorted(event.event_type for event in self.emits),
            "require": [
                {**({"on": trigger.event_type} if self.is_join else {}), **requirement.declaration()}
                for trigger in self.triggers
                for requirement in trigger.requires
            ],
            "kind": self.kind.value,
            "timeout_seconds": self.timeout_seconds,
            "retry": self.retry.declaration() if self.repeats else "never",
            "breaker": None if self.breaker is None else self.breaker.declaration(),
        }
        if self.optional:
            declared["optional"] = True
        return declared if self.within_ms is None else {**declared, "within_ms": self.within_ms}


def by_topic(subscriptions: Iterable[Subscription]) -> Mapping[str, Subscription]:
    """What handles the events of each topic; a join is found under all of its."""
    return {event_type: each for each in subscriptions for event_type in each.event_types}
