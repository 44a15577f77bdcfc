"""Going forward: what a flow still needs, what may not begin in it any more, and who has to be asked. Pure functions of what is known.

Past a pivot a person may go past a step that came to no end. What it may have led to is fenced before the flow commits: nobody
would wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from maypole.schemas.identifiers import StepId
from maypole.services.saga.facts import Ask, Outcome, Phase, Saga
from maypole.services.saga.reach import Place, Reach, expected, possible
from maypole.services.saga.undoing import is_decided, is_gone


class Forward:
    """What a flow that is not being undone waits for: each question is answered once, when it is asked."""

    def __init__(self, saga: Saga) -> None:
        self._saga = saga
        self.reach: Reach = expected(saga) if saga.phase is Phase.RUNNING else possible(saga)

    @property
    def is_over(self) -> bool:
        return bool(self.reach) and all(map(self.is_done, self.reach.values()))

    def is_done(self, place: Place) -> bool:
        """Whether the flow needs nothing more of this step, and nothing more can come of it."""
        facts = place.facts
        completed = facts.outcome is Outcome.COMPLETED and not facts.undone
        return completed or place.failed_harmlessly or is_decided(facts) or self._is_given_up(place)

    def needs_a_person(self, place: Place) -> bool:
        """Past a pivot: whether nothing else leads past this step. One that was given another chance is asked for it first, and
        one that is only possible is fenced."""
        if self._saga.phase is not Phase.FORWARD_ONLY or self.is_done(place):
            return False
        return place.is_final or (self._saga.overdue and place.facts.chance == 1 and not place.guessed)

    def asks(self) -> Iterator[tuple[Place, Ask]]:
        for place in self.reach.values():
            if not place.is_final and not is_decided(place.facts):
                if place.facts.expired:
                    yield place, Ask.EXPIRE
                elif place.facts.chance > 1:
                    yield place, Ask.RETRY
                elif place.guessed and self._has_all_it_needs:
                    yield place, Ask.FENCE

    def may_be_fenced(self, step_id: StepId) -> bool:
        """Whether that was asked for, be it that the step's cause has been told since, or that it has none any more."""
        if step_id in self.reach:
            return step_id in self._left_behind
        return any(facts.decision is not None for facts in self._saga.steps.values())

    @cached_property
    def _left_behind(self) -> frozenset[StepId]:
        """Steps to which one leads that a person went past."""
        found: set[StepId] = set()
        causes = [place for place in self.reach.values() if place.facts.decision is not None]
        while causes:
            new = [child for child in causes.pop().children if child.step_id not in found]
            found.update(child.step_id for child in new)
            causes += new
        return frozenset(found)

    @cached_property
    def _has_all_it_needs(self) -> bool:
        """Before that, whatever is under way may yet lead to what is only possible now: a join that may expire has many causes."""
        return all(self.is_done(place) for place in self.reach.values() if not _is_only_possible(place))

    def _is_given_up(self, place: Place) -> bool:
        """A person's word on a step holds for what was fenced because of it, also when the step turns out to have led to that."""
        if place.facts.outcome is Outcome.FENCED and place.step_id in self._left_behind:
            return True
        return _is_only_possible(place) and is_gone(place)


def _is_only_possible(place: Place) -> bool:
    """Whom a person gives another chance is needed."""
    return bool(place.guessed) and place.facts.chance == 1
