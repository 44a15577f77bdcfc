"""A choreography: who reacts to what, derived from the agents' declarations; a flow is pinned to one by its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from maypole.bus.agent import Kind


@dataclass(frozen=True, slots=True, order=True)
class Reaction:
    """One subscription of one agent: the unit that becomes a step when an event meets it."""

    agent: str
    on: tuple[str, ...]
    """The event types that trigger it: one, or those of a join, sorted."""
    emits: tuple[str, ...]
    kind: Kind

    @property
    def subscription(self) -> str:
        return "+".join(self.on)


@dataclass(frozen=True)
class Choreography:
    """All reactions that one root type can lead to. Immutable; equal content has an equal hash."""

    root: str
    reactions: tuple[Reaction, ...]

    @cached_property
    def text(self) -> str:
        """Canonical JSON: sorted, without blanks, so that everybody derives the same hash from the same declarations."""
        reactions = [
            {"agent": reaction.agent, "on": list(reaction.on), "emits": list(reaction.emits), "kind": reaction.kind.value}
            for reaction in self.reactions
        ]
        return json.dumps({"root": self.root, "reactions": reactions}, sort_keys=True, separators=(",", ":"))

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
            reactions = tuple(
                Reaction(str(item["agent"]), tuple(map(str, item["on"])), tuple(map(str, item["emits"])), Kind(item["kind"]))
                for item in found["reactions"]
            )
            return cls(str(found["root"]), reactions)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected a choreography with root and reactions, found {text[:200]!r}") from error


def derive_choreography(root: str, declarations: Iterable[Mapping[str, Any]]) -> Choreography:
    """The part of the declared agents that an event of type `root` can reach."""
    reactions = sorted(reaction for declaration in declarations for reaction in reactions_of(declaration))
    reached: set[str] = set()
    frontier = {root}
    while frontier:
        reached |= frontier
        frontier = {emitted for reaction in reactions if reached.issuperset(reaction.on) for emitted in reaction.emits} - reached
    return Choreography(root, tuple(reaction for reaction in reactions if reached.issuperset(reaction.on)))


def reactions_of(declaration: Mapping[str, Any]) -> Sequence[Reaction]:
    return [
        Reaction(
            declaration["name"],
            (subscription["on"],) if isinstance(subscription["on"], str) else tuple(sorted(subscription["on"])),
            tuple(sorted(subscription["emits"])),
            Kind(subscription["kind"]),
        )
        for subscription in declaration["subscriptions"]
        # Whoever reacts to the ends of flows watches flows from outside and is part of none.
        if subscription["on"] != "maypole.flow.ended"
    ]
