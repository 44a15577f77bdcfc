"""What is explored: a choreography unrolled into the steps of one flow, and what may go wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from maypole.bus.choreography import Choreography, Reaction, derive_choreography
from maypole.bus.no_return import check_way_back
from maypole.schemas.identifiers import (
    EventId,
    FlowId,
    StepId,
    awaited_trigger,
    joined_trigger,
    output_event_id,
    root_event_id,
    step_id_of,
)
from maypole.services.saga.facts import EventRef
from tests.support.stories import agent

FLOW = FlowId("flow")
ROOT = "r.s"


@dataclass(frozen=True)
class Instance:
    """One step that may come to be. `parts` are the events that trigger it, as bits; `options` the outputs it may choose from."""

    index: int
    name: str
    step_id: StepId
    reaction: Reaction
    parts: int
    options: tuple[tuple[EventRef, ...], ...]
    descendants: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Scenario:
    """Letters name steps, and the agents whose steps they are; a second round in a loop gets a stroke.

    `edges` maps a step to what its agent subscribes to and what it emits there, as `"r.s>a.b"`.
    """

    name: str
    edges: Mapping[str, str] = field(hash=False)
    kinds: Mapping[str, str] = field(default_factory=dict, hash=False)
    """`undo` unless said otherwise."""
    together: str = ""
    """Whose steps are subscriptions of one agent, named after the first: one process, which dies with all that it is at."""
    optional: str = ""
    within: str = ""
    fails: str = ""
    """Who may fail for good."""
    retries: str = ""
    """Who may fail an attempt and try again."""
    never: str = ""
    """Whose attempts of unknown fate are not repeated."""
    attempts_max: int = 2
    crashes: int = 0
    crashing: str = ""
    """Whose processes may die or lose their partitions, so often in all."""
    takeover: bool = False
    """Whether a successor may presume, or know, that the last owner is dead."""
    deadline: bool = False
    """Whether the flow's deadline may fire, at any time."""
    late: str = ""
    """Whose steps may be declared late, each by a deadline of its own."""
    silent: str = ""
    """Whose agents nobody brings back after they died."""
    silences: int = 0
    """How many commands may be declared unanswered."""
    decisions: str = ""
    """What an operator may decide: R(etry), V(ouched for, RESOLVED), S(kip)."""
    decisions_max: int = 1
    undo_fails: str = ""
    empty: str = ""
    """Who may also complete without outputs."""
    rounds: int = 1
    """How often a loop goes round, at most."""
    unsafe: bool = False
    """Explored although its choreography is refused."""

    @cached_property
    def choreography(self) -> Choreography:
        agents: dict[str, Mapping[str, Any]] = {}
        for name, edge in self.edges.items():
            on, _, emits = edge.partition(">")
            more: dict[str, object] = {}
            if name in self.optional:
                more["optional"] = True
            if name in self.within:
                more["within_ms"] = 1
            declared = agent(self._agent_of(name), on, *emits.split(), kind=self.kinds.get(name, "undo"), **more)
            known = agents.setdefault(declared["name"], {**declared, "subscriptions": []})
            known["subscriptions"].extend(declared["subscriptions"])
        choreography = derive_choreography(ROOT, agents.values())
        if not self.unsafe:
            check_way_back(choreography)
        return choreography

    def _agent_of(self, name: str) -> str:
        return self.together[0] if name in self.together else name

    @cached_property
    def _letters(self) -> Mapping[tuple[str, str], str]:
        """By agent and subscription: the step's name."""
        ons = {name: edge.partition(">")[0] for name, edge in self.edges.items()}
        return {(self._agent_of(name), "+".join(sorted(on.split("+")))): name for name, on in ons.items()}

    @cached_property
    def root(self) -> EventRef:
        return EventRef(root_event_id(FLOW, ROOT), ROOT)

    @cached_property
    def events(self) -> Mapping[EventRef, int]:
        """The bit of each event."""
        return self._unrolled[1]

    @cached_property
    def steps(self) -> tuple[Instance, ...]:
        return self._unrolled[0]

    @cached_property
    def _unrolled(self) -> tuple[tuple[Instance, ...], Mapping[EventRef, int]]:
        bits: dict[EventRef, int] = {self.root: 1}
        found: list[Instance] = []
        maker: dict[EventRef, int] = {}
        counts: dict[Reaction, int] = {}
        queue: list[EventRef] = [self.root]
        by_type: dict[str, list[EventRef]] = {}
        for event in queue:
            by_type.setdefault(event.type, []).append(event)
            for reaction in self.choreography.triggered_by(event.type):
                parts = self._parts(reaction, event, by_type)
                if parts is None:
                    continue
                iteration = len(by_type[event.type]) - 1
                made = self._instance(len(found), reaction, parts, iteration, counts, bits)
                found.append(made)
                for option in made.options:
                    for output in option:
                        if output not in maker:
                            maker[output] = made.index
                            queue.append(output)
        return tuple(self._with_descendants(found)), bits

    @staticmethod
    def _parts(reaction: Reaction, event: EventRef, by_type: Mapping[str, Sequence[EventRef]]) -> tuple[EventRef, ...] | None:
        if not reaction.is_join:
            return (event,)
        iteration = len(by_type[event.type]) - 1
        if any(len(by_type.get(of_type, ())) <= iteration for of_type in reaction.on):
            return None
        return tuple(by_type[of_type][iteration] for of_type in reaction.on)

    def _instance(
        self,
        index: int,
        reaction: Reaction,
        parts: tuple[EventRef, ...],
        iteration: int,
        counts: dict[Reaction, int],
        bits: dict[EventRef, int],
    ) -> Instance:
        ids = [EventId(part.event_id) for part in parts]
        trigger = ids[0] if len(ids) == 1 else joined_trigger(ids)
        if reaction.within_ms is not None:
            trigger = awaited_trigger(iteration)
        step_id = step_id_of(FLOW, reaction.agent, reaction.subscription, trigger)
        round_ = counts[reaction] = counts.get(reaction, 0) + 1
        name = self._letters[reaction.agent, reaction.subscription]
        outputs = tuple(EventRef(output_event_id(step_id, of_type, i), of_type) for i, of_type in enumerate(reaction.emits))
        options: tuple[tuple[EventRef, ...], ...] = (outputs,)
        if self._begins_a_round_too_many(reaction, counts):
            options = ((),)
        elif name in self.empty:
            options = (outputs, ())
        for option in options:
            for output in option:
                bits.setdefault(output, 1 << len(bits))
        mask = 0
        for part in parts:
            mask |= bits[part]
        return Instance(index, name + "'" * (round_ - 1), step_id, reaction, mask, options)

    def _begins_a_round_too_many(self, reaction: Reaction, counts: Mapping[Reaction, int]) -> bool:
        followers = {follower for of_type in reaction.emits for follower in self.choreography.triggered_by(of_type)}
        looping = (follower for follower in followers if follower in self.choreography.downstream[follower])
        return any(counts.get(follower, 0) >= self.rounds for follower in looping)

    @staticmethod
    def _with_descendants(found: Sequence[Instance]) -> list[Instance]:
        # By the types of events: whatever may come of a step, also by way of other rounds.
        made: dict[int, set[int]] = {each.index: set() for each in found}
        for each in reversed(found):
            own = {output for option in each.options for output in option}
            for other in found:
                triggers = {output for output in own if output.type in other.reaction.on}
                if triggers and other.index > each.index:
                    made[each.index] |= {other.index} | made[other.index]
        return [
            Instance(each.index, each.name, each.step_id, each.reaction, each.parts, each.options, frozenset(made[each.index]))
            for each in found
        ]

    def is_in(self, name: str, names: str) -> bool:
        return name.rstrip("'") in names
