"""Undoing: what is settled, what must be asked of whom, and what only a person can decide. Pure functions of what is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from maypole.schemas.identifiers import StepId
from maypole.schemas.journal import Decision, Effect
from maypole.services.saga.facts import Ask, Facts, Outcome, Phase, Saga
from maypole.services.saga.reach import Place, Reach, possible, still_to_come


class Undoing:
    """What an aborting flow has done and what is left of it: each question is answered once, when it is asked."""

    def __init__(self, saga: Saga) -> None:
        self._saga = saga
        self.reach: Reach = possible(saga)

    @cached_property
    def settled(self) -> frozenset[StepId]:
        """Nothing is left of these steps, and nothing can come of them."""
        found: set[StepId] = set()
        left = [*self.reach.values()][::-1]
        while True:  # once for nearly all: a join that may expire can stand before one of its parents
            still_left = []
            for place in left:
                if place.facts.undone or (is_gone(place) and self._nothing_follows(place, found)):
                    found.add(place.step_id)
                else:
                    still_left.append(place)
            if len(still_left) in (0, len(left)):
                return frozenset(found)
            left = still_left

    @cached_property
    def unexpected(self) -> tuple[StepId, ...]:
        """Steps that have run though nobody has told of their cause. They are neither undone nor taken as proof of it."""
        ran_unseen = (step_id for step_id, facts in self._saga.steps.items() if ran(facts) and not is_decided(facts))
        return tuple(sorted(step_id for step_id in ran_unseen if step_id not in self.reach))

    @cached_property
    def unsettled(self) -> tuple[StepId, ...]:
        """Exactly what is left, first causes first."""
        return (*(step_id for step_id in self.reach if step_id not in self.settled), *self.unexpected)

    @property
    def left(self) -> tuple[StepId, ...]:
        """Of the unsettled ones those that are so by themselves, and not for what they may lead to."""
        mine = (step_id for step_id in self.unsettled if step_id not in self.reach or not is_gone(self.reach[step_id]))
        return tuple(mine) or self.unsettled

    @cached_property
    def beyond_undo(self) -> tuple[StepId, ...]:
        """Steps that may have acted for good, so that only a person can say what becomes of the flow."""
        return tuple(
            place.step_id
            for place in self.reach.values()
            if not place.reaction.undoable and place.is_final and place.effect is not Effect.NONE and not is_decided(place.facts)
        )

    def asks(self) -> Iterator[tuple[Place, Ask]]:
        """Every command that is due now: fences for what may run, undoing for what has nothing left that depends on it."""
        for place in self._to_fence():
            yield place, Ask.FENCE
        if self._pivots:
            return  # the flow may yet have to go forward
        for place in self.reach.values():
            if self._can_be_undone(place):
                yield place, Ask.COMPENSATE

    @cached_property
    def _open(self) -> tuple[Place, ...]:
        return tuple(place for place in self.reach.values() if not place.is_final and not is_decided(place.facts))

    @cached_property
    def _pivots(self) -> tuple[Place, ...]:
        """Those that may be under way, or are said to have happened although nobody told of their cause."""
        mine = (place for place in self.reach.values() if place.reaction.is_pivot and not is_decided(place.facts))
        return tuple(place for place in mine if place.facts.outcome in (Outcome.OPEN, Outcome.COMPLETED))

    @cached_property
    def _coming(self) -> frozenset[str]:
        assert self._saga.choreography is not None
        return still_to_come(self._saga.choreography, self.reach)

    def _to_fence(self) -> Iterable[Place]:
        """A pivot that may be under way is asked alone, and before it those that may lead to one: if it turns out to have
        happened the flow goes forward, and whatever had been fenced beside it would be missing then."""
        choreography = self._saga.choreography
        if choreography is None:
            return ()
        if self._pivots:
            return [place for place in self._pivots if not place.is_final]
        leading = [place for place in self._open if any(after.is_pivot for after in choreography.downstream[place.reaction])]
        return leading or self._open

    def _can_be_undone(self, place: Place) -> bool:
        return (
            place.is_final
            and place.effect is not Effect.NONE
            and place.reaction.undoable
            and not place.facts.undone
            and not is_decided(place.facts)
            and self._nothing_follows(place, self.settled)
        )

    def _nothing_follows(self, place: Place, settled: Iterable[StepId]) -> bool:
        """No step that this one leads to exists or can come to exist."""
        return all(child.step_id in settled for child in place.children) and not any(missing <= self._coming for missing in place.awaiting)


def is_gone(place: Place) -> bool:
    """Whether the step itself has left nothing behind, or a person vouches for what it left."""
    return is_decided(place.facts) or (place.is_final and place.effect is Effect.NONE)


def is_decided(facts: Facts) -> bool:
    """Whether a person vouches for it. RESOLVED, said while nobody knew how the step had ended, is a word about what was known:
    when it turns out to have had an effect, that is undone. SKIP means: whatever became of it, leave it."""
    if facts.decision is Decision.SKIP:
        return True
    stands = not facts.decided.while_open or facts.outcome is Outcome.OPEN or facts.effect is Effect.NONE
    return facts.decision is Decision.RESOLVED and stands


def needs_a_person(saga: Saga, undoing: Undoing) -> bool:
    """Whether nothing but a decision leads on, for some part of an aborting flow."""
    if undoing.beyond_undo or has_stuck_steps(saga):
        return True
    return bool(undoing.unexpected) and len(undoing.unsettled) == len(undoing.unexpected)


def has_stuck_steps(saga: Saga) -> bool:
    return any(facts.stuck is not None for facts in saga.steps.values())


def is_aborting(phase: Phase) -> bool:
    return phase in (Phase.ABORTING, Phase.REOPENED)


def ran(facts: Facts) -> bool:
    """Whether something may be left of a step of which nothing else is known."""
    match facts.outcome:
        case Outcome.OPEN:
            return facts.started
        case Outcome.FENCED:
            return False
        case Outcome.FAILED:
            return facts.effect is not Effect.NONE and not facts.undone
    return not facts.undone
