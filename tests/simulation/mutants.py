"""Bugs put in by hand, each a small change of the runtime, and the finding that gives it away."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

from maypole.bus import recording
from maypole.bus.delivery_loop import DeliveryLoop
from maypole.bus.gate import Gate
from maypole.bus.gathering import Gathering
from maypole.bus.holding import Holding
from maypole.bus.ledger import transitions
from maypole.bus.ledger.port import Ask
from maypole.bus.ledger.step import State, Step
from maypole.bus.ledger.transitions import AttemptFailed, Begin, Finish, Transition, Verdict
from maypole.bus.missed import Missed
from maypole.bus.moves import Moved
from maypole.bus.ports import Delivery, Expired
from maypole.bus.publisher import Publisher
from maypole.bus.recording import Recording
from maypole.bus.stores.memory import MemoryStore
from maypole.bus.undoing import Undoing
from maypole.bus.waiting import Waiting
from maypole.bus.watermark import Watermark
from maypole.bus.work import Ownership, Work
from maypole.schemas.identifiers import StepId


@dataclass(frozen=True, slots=True)
class Mutant:
    """`within`: the number of seeds, from 0 on, of which one gives it away at the latest."""

    name: str
    cast: str
    found: Collection[str]
    within: int
    put_in: Callable[[], AbstractContextManager[object]]


def _instead(where: object, **what: Any) -> Callable[[], AbstractContextManager[object]]:
    return lambda: patch.multiple(where, **what)


def _all(*mutations: Callable[[], AbstractContextManager[object]]) -> Callable[[], AbstractContextManager[object]]:
    @contextmanager
    def put_in() -> Iterator[None]:
        with ExitStack() as stack:
            for mutation in mutations:
                stack.enter_context(mutation())
            yield

    return put_in


# Committed as soon as it is handled, while nothing of it is acknowledged.

_finished = Publisher.finished


def _done_at_once(self: Publisher, work: Work) -> None:
    work.ownership.watermark.done(work.offset)
    self._done([])
    _finished(self, work)


# The row says DONE before the handler is called.

_begin = Recording.begin


async def _done_before(self: Recording, work: Work) -> bool:
    begun = await _begin(self, work)
    if begun:
        await self._ask(Ask(work.step, Finish(work.begun), recording._place(work)))
    return begun


def _finish_again(step: Step, asked: Finish) -> Transition:
    return Transition(replace(step, state=State.DONE), Verdict.RECORDED)


def _finishing_again() -> AbstractContextManager[object]:
    rules = {**transitions.TABLE[Finish], State.DONE: _finish_again}
    return patch.dict(transitions.TABLE, {Finish: rules})


def _failed_after_all(step: Step, asked: AttemptFailed) -> Transition:
    return Transition(replace(step, state=State.STARTED, effect=asked.effect), Verdict.RECORDED)


def _failing_after_all() -> AbstractContextManager[object]:
    rules = {**transitions.TABLE[AttemptFailed], State.DONE: _failed_after_all}
    return patch.dict(transitions.TABLE, {AttemptFailed: rules})


# What leaves, leaves before the row is written.


async def _publish_first(self: Publisher) -> None:
    while True:
        await self._arrived.wait()
        self._arrived.clear()
        group, self._finished = self._finished, []
        ours = [work for work in group if work.ownership.ours]
        self._conclude(ours)
        records = [record for work in ours for record in (*([work.journal] if work.journal else []), *work.outputs)]
        if records:
            await self._outlets.few.publish(records)
        await self._settle(ours)
        for work in ours:
            work.journal, work.outputs, work.sendings = None, [], []
        await self._settled.put(group)


# A zombie finishes, publishes and commits as if its attempt still held.


def _holds_always(step: Step, attempt: int) -> bool:
    return True


def _never_abandon(self: DeliveryLoop, leaving: Sequence[Ownership]) -> None:
    return None


# The position follows whatever is done.


def _past_gaps(self: Watermark, offset: int) -> None:
    self.position = max(offset + 1, self.position or 0)


# What waits is not waited for.

_until_turn = Waiting.until_turn


async def whenever(self: Waiting, work: Work) -> Moved | None:
    given = work.move
    if given is not None:
        work.move = given._replace(due_ms=0)
    try:
        return await _until_turn(self, work)
    finally:
        work.move = given


def at_once(self: Holding, delivery: Delivery) -> float:
    return 0.0


async def _behind_nobody(self: Waiting, work: Work, named: Sequence[StepId]) -> Sequence[Any]:
    return ()


# Of pure steps, those that have a row leave before those that have none.

_settle = Recording.settle


async def _rowed_first(self: Recording, works: Sequence[Work]) -> Sequence[Work]:
    left = await _settle(self, works)
    for work in works:
        work.recorded = work.recorded or work.row is not None
    return left


# A step that another attempt answered for begins again behind what follows it.


def _lost_alone(self: Publisher, group: Sequence[Work]) -> list[Work]:
    self._taken_back([work for work in group if work.lost])
    return [work for work in group if not work.lost]


def _at_the_end(self: DeliveryLoop, works: Sequence[Work]) -> None:
    self._line_up(self._anew(works))
    self._wake_workers()


# What retention deleted is passed over without a word.


def _unsaid(self: Missed, expired: Expired) -> None:
    return None


# A finished step is computed again.


async def _rows_unseen(self: Recording, works: Sequence[Work]) -> None:
    return None


# A join's parts live as long as the process.

_made = Gathering.__init__


def _keeping_in_memory(self: Gathering, *arguments: Any) -> None:
    _made(self, *arguments)
    self._ledger = MemoryStore(lambda: 0).open("memory")


# An outage counts as the record's fault.

_failed = Gate.failed


def _burning(self: Gate, work: Work, error: BaseException) -> bool:
    _failed(self, work, error)
    return False


# What must never run runs all the same.


def _begin_behind(step: Step, asked: Begin) -> Transition:
    return Transition(Step(State.STARTED, step.attempt + 1, asked.owner, asked.lease_until_ms, acts=asked.acts), Verdict.RUN)


def _no_tombstones() -> AbstractContextManager[object]:
    return patch.dict(transitions.TABLE, {Begin: {**transitions.TABLE[Begin], State.FENCED: _begin_behind}})


# An undo is told before it is done.


async def _say_undone(self: Undoing, *arguments: Any) -> None:
    return None


MUTANTS: Final = (
    Mutant("commit before acknowledgement", "thinking", {"lost"}, 60, _instead(Publisher, finished=_done_at_once)),
    Mutant("done before the effect", "acting", {"lost", "not finished"}, 60, _all(
        _instead(Recording, begin=_done_before), _finishing_again, _failing_after_all)),
    Mutant("ledger write after publish", "thinking", {"contradictory outcomes", "multiplied"}, 60, _instead(
        Publisher, record=_publish_first)),
    Mutant("a zombie that ignores its fence", "thinking", {"contradictory outcomes"}, 120, _all(
        _instead(transitions, _holds=_holds_always), _finishing_again, _instead(DeliveryLoop, _abandon=_never_abandon))),
    Mutant("watermark past a gap", "thinking", {"lost"}, 120, _instead(Watermark, done=_past_gaps)),
    Mutant("a retry topic consumed early", "retrying", {"tried early"}, 20, _all(
        _instead(Holding, _release_ms=at_once), _instead(Waiting, until_turn=whenever))),
    Mutant("a flow's order broken by a retry", "retrying", {"reordered"}, 20, _instead(Waiting, _unfinished=_behind_nobody)),
    Mutant("a pure step that failed once leaves before those that did not", "stumbling", {"reordered"}, 20, _instead(
        Recording, settle=_rowed_first)),
    Mutant("a lost step behind what follows it", "stumbling", {"reordered"}, 60, _all(
        _instead(Publisher, _kept_in_order=_lost_alone), _instead(DeliveryLoop, _taken_back=_at_the_end))),
    Mutant("an expired offset skipped", "expiring", {"lost", "skipped", "not finished"}, 60, _instead(
        Missed, add=_unsaid)),
    Mutant("a breaker that burns attempts", "breaking", {"not as expected"}, 20, _instead(Gate, failed=_burning)),
    Mutant("a join that keeps its parts in memory", "joining", {"not finished"}, 60, _instead(Gathering, __init__=_keeping_in_memory)),
    Mutant("a tombstone that does not block the start", "undoing", {"half done", "contradictory outcomes", "doubled effect"}, 20,
        _no_tombstones),
    Mutant("an undo that is told and not done", "undoing", {"half done"}, 20, _instead(Undoing, undo=_say_undone)),
    Mutant("outputs regenerated on redelivery", "thinking", {"contradictory outcomes", "multiplied"}, 60, _all(
        _instead(Recording, look=_rows_unseen), _finishing_again)),
)  # fmt: skip
