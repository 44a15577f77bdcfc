"""What a record says that was not known yet. None: nothing; then it is a repetition, and repetitions do nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from sys import intern
from typing import Final

from maypole.schemas.event import Event
from maypole.schemas.identifiers import StepId, command_id_of
from maypole.schemas.journal import (
    AbortRequested,
    CompensationFailed,
    DeadlineFired,
    Effect,
    OperatorDecided,
    StepAbandoned,
    StepCompensated,
    StepCompleted,
    StepFailed,
    StepFenced,
    StepStarted,
)
from maypole.services.saga.facts import NOTHING_KNOWN, Ask, EventRef, Facts, Outcome, Phase, Saga
from maypole.services.saga.reach import expected, possible
from maypole.services.saga.table import News


@dataclass(frozen=True, slots=True)
class Report:
    """`facts` are those of the step if the news is kept. `detail` is for people."""

    news: News
    step_id: StepId
    facts: Facts
    detail: str
    record: Event
    contradicts: bool = False
    """The step was known to have ended in another way."""

    def kept(self, saga: Saga) -> Saga:
        return saga.with_step(self.step_id, self.facts, saga.owed)


# What overrides what: the more a step may have done, the more it counts.
_WEIGHT: Final = {Outcome.OPEN: 0, Outcome.FENCED: 1, Outcome.FAILED: 2, Outcome.ABANDONED: 4, Outcome.COMPLETED: 5}


def read(saga: Saga, record: Event, at_ms: int) -> Report | None:
    """None when the record says nothing new."""
    match record:
        case DeadlineFired():
            if round(record.due.timestamp() * 1000) > at_ms:
                return None  # by somebody's clock, and not by the broker's: it is told again when it is due
            return Report(News.DEADLINE, StepId(record.scope), saga.of(StepId(record.scope)), f"due {record.due}", record)
        case AbortRequested():
            return Report(News.ABORT, StepId(saga.flow_id), Facts(), f"{record.by}: {record.why}", record)
        case OperatorDecided():
            step_id = StepId(record.step_id)
            facts = saga.of(step_id)
            if record.generation < facts.generation:
                return None
            return Report(News.DECISION, step_id, facts, f"{record.decision} by {record.by}: {record.note}", record)
        case StepStarted():
            facts = saga.of(StepId(record.step_id))
            if facts.started or facts.outcome is not Outcome.OPEN:
                return None
            agent, subscription = intern(record.agent), intern(record.subscription)
            if facts is NOTHING_KNOWN:  # nearly always; and to replace is dearer than to make
                after = Facts(agent, subscription, started=True)
            else:
                after = replace(facts, started=True, agent=agent, subscription=subscription)
            return Report(News.STARTED, StepId(record.step_id), after, f"attempt {record.attempt}", record)
        case CompensationFailed():
            step_id = StepId(record.step_id)
            facts = saga.of(step_id)
            current = command_id_of(saga.flow_id, step_id, Ask.COMPENSATE.value, facts.generation)
            if record.command_id != current or facts.undone:
                return None
            return Report(News.UNDO_FAILED, step_id, facts, record.detail, record)
        case StepCompensated():
            step_id = StepId(record.step_id)
            facts = saga.of(step_id)
            if facts.undone:
                return None
            return Report(News.UNDONE, step_id, replace(facts, undone=True), "undone", record)
        case StepCompleted() | StepFailed() | StepAbandoned() | StepFenced():
            return _ended(saga, record, at_ms)
    return None


def _ended(saga: Saga, record: StepCompleted | StepFailed | StepAbandoned | StepFenced, at_ms: int) -> Report | None:
    step_id = StepId(record.step_id)
    before = saga.of(step_id)
    ended_ms = before.ended_ms or (at_ms if _is_timed(saga) else 0)
    match record:
        case StepCompleted():
            # Of names there are few, and every flow would keep its own copies.
            outputs = tuple(EventRef(output.event_id, intern(output.type)) for output in record.outputs)
            if before.outcome is Outcome.COMPLETED:
                more = tuple(output for output in outputs if output not in before.outputs)
                if not more:
                    return None
                outputs = (*before.outputs, *more)  # two records of one step tell different outputs: believe in all of them
            after = _completed(before, record, outputs, ended_ms)
            news = News.COMPLETED
        case StepFailed():
            if record.generation < before.chance:
                return None
            after = replace(
                before, agent=intern(record.agent), subscription=intern(record.subscription), outcome=Outcome.FAILED,
                effect=record.effect, undone=False, ended_ms=ended_ms,
            )  # fmt: skip
            news = News.FAILED
        case StepAbandoned():
            if record.generation < before.chance:
                return None
            after = replace(before, outcome=Outcome.ABANDONED, effect=Effect.UNKNOWN, undone=False, ended_ms=ended_ms)
            news = News.FAILED
        case StepFenced() if record.attempts == 0 and before.started and before.outcome in (Outcome.OPEN, Outcome.FENCED):
            # It announced that it would act, and its agent's ledger knows of no attempt: what was lost there proves nothing.
            after = replace(before, outcome=Outcome.ABANDONED, effect=Effect.UNKNOWN, ended_ms=ended_ms)
            return Report(News.FAILED, step_id, after, "it has begun, and its agent's ledger has forgotten it", record, contradicts=True)
        case StepFenced():
            after = replace(before, outcome=Outcome.FENCED, effect=Effect.NONE, undone=False, ended_ms=ended_ms)
            news = News.FENCED
    if before.outcome is Outcome.OPEN:
        return Report(news, step_id, after, after.outcome.name, record)
    detail = f"{after.outcome.name} with effect {after.effect}, known as {before.outcome.name} with effect {before.effect}"
    if _weight(after) > _weight(before) or news is News.COMPLETED:
        # Its undo, if there was one, was told of an end that was not the last word: it counts no more.
        return Report(news, step_id, after, detail, record, contradicts=not _is_pure(saga, step_id, after))
    if (after.outcome, after.effect) == (before.outcome, before.effect):
        return None
    return _contradicting(saga, record, step_id, before, detail)


def _completed(before: Facts, record: StepCompleted, outputs: tuple[EventRef, ...], ended_ms: int) -> Facts:
    return Facts(
        intern(record.agent), intern(record.subscription), Outcome.COMPLETED, record.effect, outputs, before.started, before.expired,
        False, before.stuck, before.decided, ended_ms,
    )  # fmt: skip


def _is_timed(saga: Saga) -> bool:
    """Whether times of steps decide anything: where not, keeping them would be a twentieth of what a flow takes."""
    return saga.choreography is None or saga.choreography.has_joins_that_expire


def _contradicting(saga: Saga, record: Event, step_id: StepId, before: Facts, detail: str) -> Report | None:
    """A step that is known to have done more than this record says. Where there is no row, two attempts may well end in two ways."""
    if not _is_pure(saga, step_id, before):
        return Report(News.CONTRADICTION, step_id, before, detail, record)
    if isinstance(record, StepFailed) and saga.phase is Phase.RUNNING and step_id in expected(saga):
        return Report(News.ABORT, step_id, before, detail, record)
    return None


def _is_pure(saga: Saga, step_id: StepId, facts: Facts) -> bool:
    place = possible(saga).get(step_id)
    if place is not None:
        return place.reaction.is_pure
    reactions = saga.choreography.reactions if saga.choreography is not None else ()
    return any(each.is_pure and (each.agent, each.subscription) == (facts.agent, facts.subscription) for each in reactions)


def _weight(facts: Facts) -> int:
    return _WEIGHT[facts.outcome] + (facts.outcome is Outcome.FAILED and facts.effect is not Effect.NONE)


def undo_refused(saga: Saga, report: Report) -> Saga:
    """An agent says that it could not undo. As long as it may still succeed, the command stays out."""
    assert isinstance(report.record, CompensationFailed)
    if report.record.retryable:
        return saga
    return replace(report, facts=replace(report.facts, stuck=Ask.COMPENSATE)).kept(saga)
