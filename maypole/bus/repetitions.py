"""Deliveries of one step that are in hand at the same time: one after the other, and each looks at what the row says then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from maypole.bus.work import Work
from maypole.schemas.identifiers import StepId


class Repetitions:
    """Hardly ever are there any, so a delivery that is the only one of its step costs two entries and no waiting."""

    def __init__(self) -> None:
        self._in_hand: dict[StepId, int] = {}
        """How many deliveries of each step."""
        self._taken_up: dict[StepId, asyncio.Future[None] | None] = {}
        """Steps in work and not yet done; what a second delivery of one waits for."""

    def count(self, works: Sequence[Work]) -> None:
        """These came in hand. A step that is there already has to be looked at once more: what its row says now will not hold."""
        in_hand = self._in_hand
        for work in works:
            if work.counted:
                before = in_hand.get(work.counted, 0)
                in_hand[work.counted] = before + 1
                if before:
                    work.again = True

    def take_up(self, work: Work) -> None:
        """The first of its step."""
        self._taken_up[work.counted] = None

    async def take_up_alone(self, work: Work) -> None:
        """Once no earlier delivery of its step is in work: only when that is done can its row answer for this one.

        The lane waits meanwhile, so what comes after it stays after it.
        """
        while work.counted in self._taken_up:
            earlier = self._taken_up[work.counted]
            if earlier is None:
                earlier = self._taken_up[work.counted] = asyncio.get_running_loop().create_future()
            await asyncio.shield(earlier)
        self._taken_up[work.counted] = None

    def release(self, work: Work) -> None:
        """It is out of our hands: what was delivered twice may be looked at again."""
        left = self._in_hand[work.counted] - 1
        if left:
            self._in_hand[work.counted] = left
        else:
            del self._in_hand[work.counted]
        self.let_up(work)

    def let_up(self, work: Work) -> None:
        """Nobody works on its step, for now or for good."""
        waiting = self._taken_up.pop(work.counted, None)
        if waiting is not None:
            waiting.set_result(None)
