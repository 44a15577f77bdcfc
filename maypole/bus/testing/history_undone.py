"""What must not have happened to flows that were undone: all, nothing, or what is listed, and nothing out of its order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from maypole.bus.testing.history_entries import Called, TakenBack
from maypole.bus.testing.history_findings import Finding, Kind
from maypole.bus.testing.history_run import Run
from maypole.services.saga.facts import State

Cause = tuple[str, str]
"""An agent, and the event because of which it acts."""


def half_done(run: Run) -> Iterator[Finding]:
    """By what the witness was asked to do, and to take back. Flows that came to no end are judged for their order only."""
    for cause in sorted(run.calls.keys() | run.taken_back.keys()):
        calls, undone = run.calls.get(cause, []), run.taken_back.get(cause, [])
        yield from _by_its_end(run, cause, calls, undone)
        if undone:
            late = [call for call in calls if call.time_ms > undone[0].time_ms]
            if late:
                yield Finding(Kind.DOUBLED, cause[0], f"acted {len(late)} times because of event {cause[1]} after that was taken back")
        for before in _causes_of(run, cause):
            first = next(iter(run.taken_back.get(before, ())), None)
            if first is not None and max(deed[0] for deed in (*calls, *undone)) > first.time_ms:
                detail = f"because of event {cause[1]}: {before[0]}, which that rests on, was taken back before"
                yield Finding(Kind.HALF_DONE, cause[0], detail)


def _by_its_end(run: Run, cause: Cause, calls: Sequence[Called], undone: Sequence[TakenBack]) -> Iterator[Finding]:
    agent, trigger = cause
    flow = next((record.flow for record in run.by_id.get(trigger, ())), "")
    match run.closed.get(flow):
        case State.COMMITTED if undone:
            yield Finding(Kind.HALF_DONE, agent, f"flow {flow} is committed, and what event {trigger} led to was taken back")
        case State.COMPENSATED if calls and not undone and agent in run.witnessed:
            yield Finding(Kind.HALF_DONE, agent, f"flow {flow} is compensated, and what event {trigger} led to is there")


def _causes_of(run: Run, cause: Cause) -> Iterator[Cause]:
    """Whose steps this one rests on; of a join only those that led to its last part, which is all that a record tells."""
    event, met = cause[1], set[str]()
    while event not in met and (records := run.by_id.get(event)):
        met.add(event)  # forged records may name each other
        if not records[0].maker or records[0].parent is None:
            return
        event = records[0].parent
        yield records[0].maker, event
