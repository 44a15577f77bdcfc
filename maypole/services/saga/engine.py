"""The saga engine: `state', commands = step(state, record)`. No clock, no I/O, no chance; equal journals give equal answers.

Three moves for every record: what it says that is new is kept as the table has it; the phase is decided anew from all that is
known; and what has to be asked of agents now is compared with what was asked before. Commands can always be sent again, all of
them or some (`outstanding`): their ids are derived, so a repetition is the same command.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from sys import intern
from types import MappingProxyType
from typing import Final

from maypole.bus.choreography import Choreography
from maypole.schemas.event import Event
from maypole.schemas.identifiers import FlowId, StepId, step_id_of
from maypole.schemas.journal import AbortRequested, DeadlineFired, FlowEnded, FlowStarted
from maypole.services.saga.decisions import decided
from maypole.services.saga.facts import (
    EMPTY,
    Alarm,
    Ask,
    Asked,
    Cause,
    Command,
    EventRef,
    Facts,
    Outcome,
    Phase,
    Saga,
    Violation,
    Why,
)
from maypole.services.saga.forward import Forward
from maypole.services.saga.news import Report, read, undo_refused
from maypole.services.saga.reach import Place, expected
from maypole.services.saga.table import TABLE, News, Rule
from maypole.services.saga.undoing import (
    Undoing,
    has_stuck_steps,
    is_aborting,
    needs_a_person,
    ran,
)

REDUCER_VERSION: Final = 7
"""Raised when equal journals would no longer give equal sagas: stored states of another version are folded anew from the journal."""

Told = Command | Alarm


class UnknownPin(LookupError):
    """A flow is pinned to a choreography that nobody has recorded: what it is waiting for cannot be told."""

    def __init__(self, flow_id: FlowId, choreography: str) -> None:
        super().__init__(f"flow {flow_id} is pinned to the choreography {choreography}, which the catalog does not hold")
        self.choreography = choreography


def step(saga: Saga, record: Event, at_ms: int, choreographies: Mapping[str, Choreography]) -> tuple[Saga, tuple[Told, ...]]:
    """The state after one more record of the flow's journal, and what is to be told because of it.

    `at_ms` is the broker's append time of the record. Raises `UnknownPin` when the flow is pinned to a choreography that
    `choreographies` does not hold; the same record can be given again once it does.
    """
    if isinstance(record, FlowEnded):
        return saga, ()
    alarms: list[Alarm] = []
    if isinstance(record, FlowStarted):
        if saga.choreography is not None:
            return saga, ()
        after = _started(saga, record, at_ms, choreographies)
    else:
        report = read(saga, record, at_ms)
        if report is None:
            return saga, ()
        quick = _carried_on(saga, report)
        if quick is not None:
            return quick, ()
        after, alarms = _kept(saga, record, report)
    after, contradiction = _decided(after)
    after = _with_asked(after, at_ms)
    before = set(saga.asked.items())
    commands = [command for command in outstanding(after) if (command.step_id, after.asked[command.step_id]) not in before]
    return after, (*alarms, *contradiction, *commands)


def outstanding(saga: Saga) -> Iterator[Command]:
    """Every command that has no answer yet."""
    for step_id, asked in saga.asked.items():
        yield Command(saga.flow_id, step_id, *asked)


def _carried_on(saga: Saga, report: Report) -> Saga | None:
    """What nearly every record does, without asking anew what is expected: a step of a running flow begins, or completes and others
    follow.

    None where more has to be looked at: the rest of the engine gives the same answer.
    """
    if saga.phase is not Phase.RUNNING or saga.owed is None or report.step_id not in saga.owed or saga.asked:
        return None
    if report.news is News.STARTED:
        return report.kept(saga)
    if report.news is not News.COMPLETED or saga.choreography is None:
        return None
    owed = [step_id for step_id in saga.owed if step_id != report.step_id]
    for output in report.facts.outputs:
        for reaction in saga.choreography.triggered_by(output.type):
            follower = step_id_of(saga.flow_id, reaction.agent, reaction.subscription, output.event_id)
            if reaction.is_join or follower in saga.steps or follower in owed:
                return None
            owed.append(follower)
    if not owed or saga.choreography.is_pivot(report.facts.agent, report.facts.subscription):
        return None
    return saga.with_step(report.step_id, report.facts, tuple(owed))


def _started(saga: Saga, record: FlowStarted, at_ms: int, choreographies: Mapping[str, Choreography]) -> Saga:
    choreography = choreographies.get(record.choreography)
    if choreography is None:
        raise UnknownPin(saga.flow_id, record.choreography)
    roots = tuple(EventRef(root.event_id, intern(root.type)) for root in record.roots)
    return replace(saga, choreography=choreography, roots=roots, started_ms=at_ms, deadline_ms=_shared(record.deadline_ms))


@lru_cache(maxsize=256)
def _shared(value: int) -> int:
    """The same number as the same object: of deadlines there are few, and every flow would keep its own copy."""
    return value


def _kept(saga: Saga, record: Event, report: Report) -> tuple[Saga, list[Alarm]]:
    """What the table says about this news in this phase, done."""
    alarms: list[Alarm] = []

    def alarm(violation: Violation) -> None:
        alarms.append(Alarm(saga.flow_id, violation, report.step_id, report.detail))

    rule = TABLE[report.news][saga.phase]
    if report.contradicts and rule in (Rule.KEEP, Rule.REOPEN):
        alarm(Violation.CONTRADICTS_OUTCOME)
    match rule:
        case Rule.KEEP | Rule.REOPEN:
            saga = report.kept(saga)
        case Rule.KEEP_AND_ALARM:
            saga = report.kept(saga)
            if report.news is News.FENCED and Forward(saga).may_be_fenced(report.step_id):
                return saga, alarms
            alarm(Violation.FENCED_UNASKED if report.news is News.FENCED else Violation.UNDONE_UNASKED)
        case Rule.ALARM:
            alarm(Violation.UNDONE_UNASKED if report.news is News.UNDO_FAILED else Violation.CONTRADICTS_OUTCOME)
        case Rule.CONTRADICT if _changes_nothing(saga, report):
            saga = report.kept(saga)
        case Rule.CONTRADICT:
            saga = replace(report.kept(saga), contradictions=tuple(dict.fromkeys((*saga.contradictions, report.step_id))))
            alarm(Violation.CONTRADICTS_COMMIT)
        case Rule.ABORT:
            asked = isinstance(record, AbortRequested)
            saga = _aborted(saga, Cause(Why.CANCELLED, report.detail) if asked else Cause(Why.FAILURE, report.step_id))
        case Rule.EXPIRE_OR_ABORT | Rule.OVERDUE:
            assert isinstance(record, DeadlineFired)
            saga = _deadline_fired(saga, record.scope, may_abort=rule is Rule.EXPIRE_OR_ABORT)
        case Rule.UNDO_FAILED:
            saga = undo_refused(saga, report)
        case Rule.DECIDE:
            after = decided(saga, report)
            if after is None:
                alarm(Violation.DECISION_REFUSED)
            saga = after or saga
        case Rule.NOTHING:
            pass
    return saga, alarms


def _changes_nothing(saga: Saga, report: Report) -> bool:
    """After a commit: a pure step without which the flow went on has ended after all, and leads to nothing; or a fence is answered
    that is not needed any more."""
    forward = Forward(report.kept(saga))
    if report.news is News.FENCED:
        return forward.may_be_fenced(report.step_id)
    place = forward.reach.get(report.step_id)
    if place is None or not place.reaction.is_pure:
        return False
    if report.news is News.FAILED:
        return saga.of(report.step_id).outcome is Outcome.FENCED
    return report.news is News.COMPLETED and forward.is_over


def _deadline_fired(saga: Saga, scope: str, *, may_abort: bool) -> Saga:
    """Nothing that has come to its end can be late: the journal said so first."""
    late = Cause(Why.LATE, scope)
    if scope == saga.flow_id:
        return replace(_aborted(saga, late) if may_abort else saga, overdue=True)
    for command in outstanding(saga):
        if scope == command.id:
            if may_abort and command.kind is Ask.RETRY:
                return saga  # its end is the answer, and for that it has until the flow's deadline, like every step
            if may_abort:
                return _aborted(saga, Cause(Why.LATE, command.step_id))
            return _with_facts(saga, command.step_id, replace(saga.of(command.step_id), stuck=command.kind))
    place = Forward(saga).reach.get(StepId(scope))
    if place is None or place.is_final:
        return saga
    if place.facts.chance > 1 and place.reaction.within_ms is not None:
        return saga  # its time was up before it was given another chance
    if place.reaction.within_ms is not None and saga.phase in (Phase.RUNNING, Phase.FORWARD_ONLY):
        return _with_facts(saga, place.step_id, replace(place.facts, expired=True))
    return _aborted(saga, late) if may_abort else saga


def _aborted(saga: Saga, cause: Cause) -> Saga:
    return replace(saga, phase=Phase.ABORTING, cause=cause)


def _decided(saga: Saga) -> tuple[Saga, tuple[Alarm, ...]]:
    """The phase that follows from all that is known, and whether somebody has to decide. The first decision stands: only an abort
    that met a pivot is revoked."""
    match saga.phase:
        case Phase.RUNNING | Phase.FORWARD_ONLY:
            return _decided_forward(saga, Forward(saga))
        case Phase.ABORTING | Phase.REOPENED | Phase.COMPENSATED if saga.choreography is not None:
            return _decided_back(saga, Undoing(saga))
    return saga, ()


def _decided_forward(saga: Saga, forward: Forward) -> tuple[Saga, tuple[Alarm, ...]]:
    reach = forward.reach
    if saga.phase is Phase.RUNNING:
        if any(map(_is_passed_pivot, reach.values())):
            saga = replace(saga, phase=Phase.FORWARD_ONLY)
            forward = Forward(saga)
        elif (failed := next(filter(_has_failed, reach.values()), None)) is not None:
            saga = _aborted(saga, Cause(Why.FAILURE, failed.step_id))
            return _decided_back(saga, Undoing(saga))
    stuck = saga.phase is Phase.FORWARD_ONLY and (has_stuck_steps(saga) or any(map(forward.needs_a_person, forward.reach.values())))
    if stuck or not forward.is_over:
        owed = tuple(place.step_id for place in reach.values() if not place.is_final) if saga.phase is Phase.RUNNING else None
        return replace(saga, stuck=stuck, owed=owed), ()
    strangers = tuple(sorted(step_id for step_id, facts in saga.steps.items() if step_id not in forward.reach and ran(facts)))
    alarms = tuple(Alarm(saga.flow_id, Violation.CONTRADICTS_COMMIT, step_id, "it ran, and nobody caused it") for step_id in strangers)
    return replace(saga, phase=Phase.COMMITTED, stuck=False, contradictions=strangers), alarms


def _decided_back(saga: Saga, undoing: Undoing) -> tuple[Saga, tuple[Alarm, ...]]:
    # What rests on a person's word, however far back, proves nothing: nobody has told that it was caused.
    has_passed = saga.phase is Phase.ABORTING and any(map(_is_passed_pivot, undoing.reach.values()))
    if has_passed and any(map(_is_passed_pivot, expected(saga).values())):
        saga = replace(saga, phase=Phase.FORWARD_ONLY)
        return _decided_forward(saga, Forward(saga))
    stuck = needs_a_person(saga, undoing)
    if not undoing.unsettled and not stuck:
        return replace(saga, phase=Phase.COMPENSATED, stuck=False), ()
    if saga.phase is not Phase.COMPENSATED:
        return replace(saga, stuck=stuck), ()
    alarm = Alarm(saga.flow_id, Violation.CONTRADICTS_COMPENSATION, undoing.left[0], "there is something left to undo")
    return replace(saga, phase=Phase.REOPENED, stuck=stuck), (alarm,)


def _has_failed(place: Place) -> bool:
    return place.facts.outcome in (Outcome.FAILED, Outcome.ABANDONED) and not place.failed_harmlessly


def _is_passed_pivot(place: Place) -> bool:
    """Not one that a person vouches for, because what was undone since cannot be done again."""
    return place.reaction.is_pivot and place.facts.outcome is Outcome.COMPLETED and place.facts.decision is None


def _with_asked(saga: Saga, at_ms: int) -> Saga:
    """What is to be asked now. A command keeps the time at which it became due for as long as it is without answer."""
    asked: dict[StepId, Asked] = {}
    for place, kind in _asks(saga):
        if place.facts.stuck is kind:
            continue  # repeating it is up to a person now
        due = Asked(kind, place.facts.generation, place.reaction.agent, place.reaction.subscription, at_ms)
        known = saga.asked.get(place.step_id)
        asked[place.step_id] = known if known is not None and known[:2] == due[:2] else due
    return saga if asked == saga.asked else replace(saga, asked=MappingProxyType(asked) if asked else EMPTY)


def _asks(saga: Saga) -> Iterator[tuple[Place, Ask]]:
    if is_aborting(saga.phase):
        yield from Undoing(saga).asks()
    elif saga.phase in (Phase.RUNNING, Phase.FORWARD_ONLY) and any(each.expired or each.generation > 1 for each in saga.steps.values()):
        yield from Forward(saga).asks()


def _with_facts(saga: Saga, step_id: StepId, facts: Facts) -> Saga:
    return saga.with_step(step_id, facts, saga.owed)
