"""Which steps a flow owes, and which may still run: the closure of its roots under everything that completed.

Computed anew from all facts kept, so a record that came before its parent's is neither lost nor believed too early
(after the acknowledgement tree of Apache Storm: Toshniwal et al., "Storm@twitter", SIGMOD 2014).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TypeAlias

from maypole.bus.choreography import Choreography, Reaction
from maypole.schemas.identifiers import EventId, FlowId, StepId, awaited_trigger, joined_trigger, output_event_id, step_id_of
from maypole.schemas.journal import Decision, Effect
from maypole.services.saga.facts import EventRef, Facts, Outcome, Saga


class Place:
    """A step where it stands in the flow. `trigger` are the events that lead to it, `children` the steps that it leads to."""

    __slots__ = ("awaiting", "children", "facts", "guessed", "reaction", "step_id", "trigger")

    def __init__(self, step_id: StepId, reaction: Reaction, facts: Facts, guessed: tuple[Reaction, ...]) -> None:
        self.step_id = step_id
        self.reaction = reaction
        self.facts = facts
        self.trigger: tuple[EventRef, ...] = ()
        self.children: list[Place] = []
        self.awaiting: list[frozenset[str]] = []
        """Of each join that needs more than this step gave it: the types that are missing."""
        self.guessed = guessed
        """Where the step is only possible: the reactions that are assumed to have led here. Empty as soon as one part is known."""

    @property
    def is_final(self) -> bool:
        return self.facts.outcome is not Outcome.OPEN

    @property
    def effect(self) -> Effect:
        """Known to be NONE for a step that has none, whatever became of it."""
        return self.facts.effect if self.reaction.acts_outside else Effect.NONE

    @property
    def failed_harmlessly(self) -> bool:
        """It was optional, and nothing is left of it."""
        return self.reaction.optional and self.facts.outcome in (Outcome.FAILED, Outcome.ABANDONED) and self.effect is Effect.NONE

    @property
    def hides_outputs(self) -> bool:
        """Whether it may have led on although nobody has told: a pure step has no row that could prevent it, and of
        one that a person vouches for nothing is known."""
        facts = self.facts
        if facts.outcome is Outcome.OPEN:
            return facts.decision in (Decision.RESOLVED, Decision.SKIP)
        return self.reaction.is_pure and facts.outcome is not Outcome.COMPLETED


Caused: TypeAlias = tuple[EventRef, Place | None]
"""An event and the step that it came from; a root came from none."""
Parts: TypeAlias = dict[str, list[Caused]]
"""Of a join: by type, those that no round has taken; of one that may expire, all."""
Reach = Mapping[StepId, Place]
"""In the order of cause: parents before their children, but for joins that may expire, which are there from their first part on."""


def expected(saga: Saga) -> Reach:
    """The steps of the roots, and those triggered by the outputs of completed ones."""
    return _closure(saga, guessing=False)


def possible(saga: Saga) -> Reach:
    """The expected steps and those that may run without anybody having told of their cause."""
    return _closure(saga, guessing=True)


def still_to_come(choreography: Choreography, reach: Reach) -> frozenset[str]:
    """The types of the events that a step which has not ended can still lead to.

    They decide whether a join that lacks a part is possible: it is not, once nobody is left who could give that part.
    """
    open_places = [place for place in reach.values() if not place.is_final and not place.hides_outputs]
    reactions = {reaction for place in open_places for reaction in (place.reaction, *choreography.downstream[place.reaction])}
    return frozenset(emitted for reaction in reactions for emitted in reaction.emits)


def _closure(saga: Saga, *, guessing: bool) -> Reach:
    found: dict[StepId, Place] = {}
    choreography = saga.choreography
    if choreography is None:
        return found
    parts: dict[Reaction, Parts] = {}
    queue: deque[Caused] = deque((root, None) for root in saga.roots)
    guesses: deque[Caused] = deque()

    def lead_to(step_id: StepId, reaction: Reaction, causes: Sequence[Caused]) -> None:
        place = found.get(step_id)
        is_new = place is None
        guessed = tuple(dict.fromkeys(each for _, producer in causes if producer is not None for each in _guessed(producer)))
        if place is None:
            place = found[step_id] = Place(step_id, reaction, saga.of(step_id), guessed)
        elif not guessed:
            place.guessed = ()
        for cause, producer in causes:
            if cause not in place.trigger:
                place.trigger = (*place.trigger, cause)
            if producer is not None and place not in producer.children:
                producer.children.append(place)
        if is_new:
            known = place.facts.outcome is Outcome.COMPLETED
            (queue if known else guesses).extend((output, place) for output in _outputs(saga.flow_id, place, guessing))

    while queue or guesses:
        if not queue:
            # Last, so that no guess takes the place of a part that is known in a round of a join.
            queue.append(guesses.popleft())
        event, parent = queue.popleft()
        guessed = () if parent is None else _guessed(parent)
        for reaction in choreography.triggered_by(event.type):
            if reaction in guessed:
                continue  # a loop of guesses would never end, and one round of it proves enough
            if not reaction.is_join:
                step_id = step_id_of(saga.flow_id, reaction.agent, reaction.subscription, EventId(event.event_id))
                lead_to(step_id, reaction, [(event, parent)])
                continue
            mine = parts.setdefault(reaction, {}).setdefault(event.type, [])
            mine.append((event, parent))
            if reaction.within_ms is not None:
                # Known from the first part on, by the number of its round.
                step_id = step_id_of(saga.flow_id, reaction.agent, reaction.subscription, awaited_trigger(len(mine) - 1))
                lead_to(step_id, reaction, [(event, parent)])
            elif causes := _taken_together(saga, reaction, parts[reaction], event):
                lead_to(_joined(saga.flow_id, reaction, causes), reaction, causes)
        while not queue and (round_ := _next_round(parts)) is not None:
            reaction, causes = round_
            lead_to(_joined(saga.flow_id, reaction, causes), reaction, causes)
    for reaction, by_type in parts.items():
        if reaction.within_ms is None:
            _tell_who_waits(reaction, by_type)
    return found


def _taken_together(saga: Saga, reaction: Reaction, parts: Parts, event: EventRef) -> list[Caused]:
    """The parts that a step took of which somebody has told, with this one; none where nobody has.

    Which parts make a round is the agent's word: it takes them as they arrive. The step's id is that of its parts.
    """
    told = {
        step_id for step_id, facts in saga.steps.items() if (facts.agent, facts.subscription) == (reaction.agent, reaction.subscription)
    }
    if not told:
        return []
    choices = [[each for each in parts.get(of_type, ()) if of_type != event.type or each[0] == event] for of_type in reaction.on]
    for causes in product(*choices):
        if _joined(saga.flow_id, reaction, causes) in told:
            for of_type, cause in zip(reaction.on, causes, strict=True):
                parts[of_type].remove(cause)
            return list(causes)
    return []


def _next_round(parts: Mapping[Reaction, Parts]) -> tuple[Reaction, list[Caused]] | None:
    """Of a join of whose next step nobody has told: the parts are taken in the order of cause, and how many rounds are left is right."""
    for reaction, by_type in parts.items():
        if reaction.within_ms is None and all(by_type.get(of_type) for of_type in reaction.on):
            return reaction, [by_type[of_type].pop(0) for of_type in reaction.on]
    return None


def _joined(flow: FlowId, reaction: Reaction, causes: Sequence[Caused]) -> StepId:
    trigger = joined_trigger(EventId(cause.event_id) for cause, _ in causes)
    return step_id_of(flow, reaction.agent, reaction.subscription, trigger)


def _tell_who_waits(reaction: Reaction, parts: Parts) -> None:
    for iteration in range(max(map(len, parts.values()))):
        missing = frozenset(of_type for of_type in reaction.on if len(parts.get(of_type, ())) <= iteration)
        if missing:
            for given in parts.values():
                for _, producer in given[iteration : iteration + 1]:
                    if producer is not None:
                        producer.awaiting.append(missing)


def _guessed(parent: Place) -> tuple[Reaction, ...]:
    return () if parent.facts.outcome is Outcome.COMPLETED else (*parent.guessed, parent.reaction)


def _outputs(flow: FlowId, place: Place, guessing: bool) -> tuple[EventRef, ...]:
    if place.facts.outcome is Outcome.COMPLETED:
        return place.facts.outputs
    if not (guessing and place.hides_outputs):
        return ()
    # Ids are derived, so a step can be kept from running before anybody has told of the event that would trigger it. One event
    # of each declared type is assumed; what goes beyond that contradicts the end, and reopens it.
    emits = place.reaction.emits
    return tuple(EventRef(output_event_id(place.step_id, of_type, index), of_type) for of_type in emits for index in range(len(emits)))
