"""A batch of inputs applied to the rows they are about: the same for every store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from maypole.bus.ledger.port import Answer, Ask, Row
from maypole.bus.ledger.step import State
from maypole.bus.ledger.transitions import Begin, Compensate, Death, Input, apply
from maypole.schemas.identifiers import StepId

DeathOf = Callable[[str], Death]


def decide(
    asks: Sequence[Ask], rows: Mapping[StepId, Row], instance: str, death_of: DeathOf, now_ms: int
) -> tuple[list[Answer], dict[StepId, Row]]:
    """The answers in order, and the rows that are to be written. `death_of` is asked about owners that hold a lease."""
    answers: list[Answer] = []
    changed: dict[StepId, Row] = {}
    for step_id, asked, place, outcome, undo in asks:
        row = changed.get(step_id) or rows.get(step_id)
        step = None if row is None else row.step
        if isinstance(asked, (Begin, Compensate)):
            asked = _filled(asked, row, instance, death_of)
        after, verdict, wait_until_ms = apply(step, asked)
        if after is not None:
            if row is None:
                row = Row(step_id, place, after, now_ms, outcome or b"", undo or b"")
            else:
                row = Row(
                    step_id, row.place, after, now_ms, row.outcome if outcome is None else outcome, row.undo if undo is None else undo
                )
            changed[step_id] = row
        answers.append(Answer(verdict, row, wait_until_ms))
    return answers, changed


def _filled(asked: Begin | Compensate, row: Row | None, instance: str, death_of: DeathOf) -> Input:
    others = row is not None and row.step.may_act_until_ms > 0 and row.step.owner != instance
    death = death_of(row.step.owner) if row is not None and others else Death.UNKNOWN
    if isinstance(asked, Begin):
        return Begin(instance, asked.lease_until_ms, asked.now_ms, asked.skew_ms, asked.acts, asked.retries, death)
    return Compensate(asked.now_ms, asked.skew_ms, death)


def is_unsettled(row: Row) -> bool:
    return row.step.state is State.FENCED or row.step.waits
