"""What the ledger knows of one step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from maypole.schemas.journal import Effect


class State(StrEnum):
    """A step that has no row has no state: it never began, or only in memory."""

    STARTED = "STARTED"
    DONE = "DONE"
    FAILED = "FAILED"
    ABANDONED = "ABANDONED"
    FENCED = "FENCED"
    COMPENSATED = "COMPENSATED"

    @property
    def final(self) -> bool:
        """Whether no attempt may begin or finish any more."""
        return self is not State.STARTED


class Turn(IntEnum):
    """Whether the flow's later steps wait for this one. It only ever goes forward; what it says is kept when the step has ended."""

    NONE = 0
    """It lies where its flow's other events lie, so whoever takes over meets it before them."""
    AWAITED = 1
    """Its record lies on a retry topic, and what it leads to may not have left yet."""
    OVER = 2
    """All that it leads to has left; whatever tells it again may come at any time."""


@dataclass(frozen=True, slots=True)
class Step:
    """The part of a row that transitions are decided by. Times are milliseconds since the epoch; 0 is none."""

    state: State
    attempt: int = 0
    """The number of the last attempt, counted from 1; 0 where none began: on a tombstone, and while the step waits for its turn."""
    owner: str = ""
    """The instance that made the last attempt."""
    lease_until_ms: int = 0
    """The last attempt stops by itself at this time; 0 once it is known to be over."""
    alive_until_ms: int = 0
    """The last attempt was declared over while it may live, and another was allowed: it stops by itself at this time at the latest."""
    acts: bool = False
    """Whether its attempts may change something outside."""
    effect: Effect = Effect.NONE
    """STARTED: what the attempts that are over may have changed. Later: what the step may have changed."""
    generation: int = 1
    """How often an operator has given the step another chance, counted from 1; a fence takes the chance away that it names."""
    turn: Turn = Turn.NONE

    @property
    def waits(self) -> bool:
        """Whether something of it has still to happen, so that later steps of its flow may have to wait."""
        return self.state is State.STARTED or self.turn is Turn.AWAITED

    @property
    def leased(self) -> bool:
        return self.lease_until_ms > 0

    @property
    def may_act_until_ms(self) -> int:
        """Nothing of what was begun acts after this time; 0: none is alive."""
        return max(self.lease_until_ms, self.alive_until_ms)

    @property
    def effect_possible(self) -> Effect:
        """What the step may have changed by now, an attempt under way included."""
        if self.state is State.STARTED and self.leased and self.acts:
            return together(self.effect, Effect.UNKNOWN)
        return self.effect


_WEIGHT: Final = {Effect.NONE: 0, Effect.UNKNOWN: 1, Effect.APPLIED: 2}


def together(one: Effect, other: Effect) -> Effect:
    """What two attempts at one step changed: known if either is known to have, because they share an idempotency key."""
    return max(one, other, key=_WEIGHT.__getitem__)
