"""A choreography: who reacts to what, derived from the agents' declarations; a flow is pinned to one by its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from maypole.schemas.topics import FLOW_ENDED

EVENTS: Final = "events"
PURE: Final = "pure"
UNDO: Final = "undo"
"""It acts on the outside and can take it back."""
PIVOT: Final = "pivot"
RETRIABLE: Final = "retriable"
_WITHOUT_EFFECT: Final = frozenset({EVENTS, PURE})
_FOR_GOOD: Final = frozenset({PIVOT, RETRIABLE})


@dataclass(frozen=True, slots=True, order=True)
class Reaction:
    """One subscription of one agent: the unit that becomes a step when an event meets it."""

    agent: str
    on: tuple[str, ...]
    """The event types that trigger it: one, or those of a join, sorted."""
    emits: tuple[str, ...]
    kind: str
    """A `Kind`, or one that a later version has added: an older process passes it on as it is."""
    optional: bool = False
    within_ms: int | None = None
    """Of a join: how long it waits for its other parts once the first is there. None: as long as the flow lives."""

    @property
    def subscription(self) -> str:
        return "+".join(self.on)

    @property
    def is_join(self) -> bool:
        return len(self.on) > 1

    @property
    def acts_outside(self) -> bool:
        """A kind that is not known here is taken to act: it may, and whoever wrote it can undo it."""
        return self.kind not in _WITHOUT_EFFECT

    @property
    def undoable(self) -> bool:
        return self.kind not in _FOR_GOOD

    @property
    def is_pure(self) -> bool:
        return self.kind == PURE

    @property
    def is_pivot(self) -> bool:
        return self.kind == PIVOT

    def form(self) -> dict[str, Any]:
        """What is absent keeps its default, so that a text written before a key existed has the hash it always had."""
        form: dict[str, Any] = {"agent": self.agent, "on": list(self.on), "emits": list(self.emits), "kind": self.kind}
        if self.optional:
            form["optional"] = True
        if self.within_ms is not None:
            form["within_ms"] = self.within_ms
        return form


@dataclass(frozen=True)
class Choreography:
    """All reactions that one root type can lead to. Immutable; equal text has an equal hash.

    `text` is canonical JSON: sorted, without blanks, so that everybody derives the same hash from the same declarations.
    What a later version has added to it is kept, so its hash holds for processes that do not know what it means.
    """

    root: str
    reactions: tuple[Reaction, ...] = field(compare=False)
    text: str

    @cached_property
    def hash(self) -> str:
        """64 hexadecimal digits, SHA-256 of the canonical text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def _by_type(self) -> Mapping[str, tuple[Reaction, ...]]:
        found: dict[str, list[Reaction]] = {}
        for reaction in self.reactions:
            for event_type in reaction.on:
                found.setdefault(event_type, []).append(reaction)
        return {event_type: tuple(reactions) for event_type, reactions in found.items()}

    @cached_property
    def _members(self) -> frozenset[tuple[str, str]]:
        return frozenset((reaction.agent, reaction.subscription) for reaction in self.reactions)

    @cached_property
    def downstream(self) -> Mapping[Reaction, frozenset[Reaction]]:
        """What may come after each reaction, however many steps later; itself only where it stands in a loop.

        A join counts as soon as one of its parts may come: it says what is possible, not what is sure.
        """
        after = {r: {follower for emitted in r.emits for follower in self.triggered_by(emitted)} for r in self.reactions}
        grown = True
        while grown:
            grown = False
            for found in after.values():
                more = set().union(*(after[follower] for follower in found)) - found
                found |= more
                grown = grown or bool(more)
        return {reaction: frozenset(found) for reaction, found in after.items()}

    @cached_property
    def _pivots(self) -> frozenset[tuple[str, str]]:
        return frozenset((reaction.agent, reaction.subscription) for reaction in self.reactions if reaction.is_pivot)

    @cached_property
    def has_joins_that_expire(self) -> bool:
        return any(reaction.within_ms is not None for reaction in self.reactions)

    def is_pivot(self, agent: str, subscription: str) -> bool:
        return (agent, subscription) in self._pivots

    def triggered_by(self, event_type: str) -> tuple[Reaction, ...]:
        return self._by_type.get(event_type, ())

    def has(self, agent: str, subscription: str) -> bool:
        """Whether a step of this subscription is part of the flow; otherwise the agent only observes it."""
        return (agent, subscription) in self._members

    @classmethod
    def parse(cls, text: str) -> Choreography:
        """Raises ValueError when the text is none."""
        try:
            found = json.loads(text)
            reactions = tuple(_reaction(item["agent"], item) for item in found["reactions"])
            return cls(str(found["root"]), reactions, _canonical(found))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected a choreography with root and reactions, found {text[:200]!r}") from error


def _canonical(found: object) -> str:
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def _reaction(agent: object, item: Mapping[str, Any]) -> Reaction:
    on = tuple(sorted(types_in(item["on"])))
    within = item.get("within_ms")
    if within is not None and (not isinstance(within, int) or isinstance(within, bool) or within < 1 or len(on) < 2):
        raise ValueError(
            f"agent {agent}: expected within_ms of a join in whole milliseconds from 1, found {within!r} on {'+'.join(map(str, on))}"
        )
    reaction = Reaction(str(agent), on, tuple(sorted(item["emits"])), str(item["kind"]), bool(item.get("optional", False)), within)
    names: tuple[object, ...] = (*reaction.on, *reaction.emits)
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"agent {agent}: expected names of event types, found {names!r}")
    return reaction


def derive_choreography(root: str, declarations: Iterable[Mapping[str, Any]]) -> Choreography:
    """The part of the declared agents that an event of type `root` can reach."""
    reactions = sorted(reaction for declaration in declarations for reaction in reactions_of(declaration))
    reached: set[str] = set()
    frontier = {root}
    while frontier:
        reached |= frontier
        frontier = {emitted for reaction in reactions if reached.issuperset(reaction.on) for emitted in reaction.emits} - reached
    members = tuple(reaction for reaction in reactions if reached.issuperset(reaction.on))
    return Choreography(root, members, _canonical({"root": root, "reactions": [reaction.form() for reaction in members]}))


def check_declaration(name: str, declaration: Mapping[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError when no choreography could be derived from it."""
    if declaration["name"] != name:
        raise ValueError(f"expected the declaration of {name}, found that of {declaration['name']!r}")
    sorted(reactions_of(declaration))


def types_in(on: str | Iterable[str]) -> tuple[str, ...]:
    """The event types behind the `on` of a declared subscription: one, or those of a join."""
    return (on,) if isinstance(on, str) else tuple(on)


def reactions_of(declaration: Mapping[str, Any]) -> Sequence[Reaction]:
    return [
        _reaction(declaration["name"], subscription)
        for subscription in declaration["subscriptions"]
        # Whoever reacts to the ends of flows watches flows from outside and is part of none.
        if subscription["on"] != FLOW_ENDED
    ]
