"""What happened in a run, and what must not have: the checker of histories, after Jepsen's checks of Kafka.

A history is what can be seen from outside once a run has come to rest: records on topics, the journal, dead letters,
committed offsets, and what an outside witness was asked to do. The checker reads nothing else, so it judges a simulation
and a real cluster alike. Pure: no clock, no I/O, and the order of the entries does not matter.

Source: J. Kingsbury, Jepsen's workload for queues (`jepsen.tests.kafka`): lost writes, duplicates, skips, reorderings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from maypole.bus.ports import TopicPartition
from maypole.bus.testing.history_entries import Ended, Entry, Outcome, Stored
from maypole.bus.testing.history_findings import Finding, Kind
from maypole.bus.testing.history_run import Run
from maypole.bus.testing.history_undone import half_done

_EXCLUSIVE: Final = frozenset({Outcome.COMPLETED, Outcome.FAILED, Outcome.ABANDONED, Outcome.FENCED})
_TOLD_BY_ONE_ID: Final = frozenset({Outcome.COMPLETED, Outcome.FAILED})
"""Other ends are answers to a command, and told once more to an event that comes again."""
_NOBODYS_STEP: Final = frozenset({"idempotency_conflict", "unknown_flow"})
"""Reasons of dead letters that decide nothing about the step of that id."""


def check(history: Iterable[Entry]) -> list[Finding]:
    """Everything that must not have happened; nothing for a good history.

    Joins count by their parents: a run has come to rest when none waits any more.
    """
    run = Run.of(history)
    return [finding for look in _LOOKS for finding in look(run)]


def open_inputs(history: Iterable[Entry]) -> list[tuple[str, Stored]]:
    """What each agent has still before it: records behind its committed offset that nothing came of. A run at rest has none."""
    run = Run.of(history)
    return [
        (agent, record)
        for (agent, at), (_, position) in run.ranges.items()
        for record in run.partitions.get(at, {}).values()
        if record.offset >= position and not run.accounts_for(agent, record) and not run.was_told(agent, at, record.offset)
    ]


def _lost_or_skipped(run: Run) -> Iterator[Finding]:
    for (agent, at), (first, position) in run.ranges.items():
        records, taken = run.partitions.get(at, {}), run.taken.get(agent)
        for offset in range(first, position):
            record = records.get(offset)
            where = f"{at.topic}/{at.partition}@{offset}"
            if record is None:
                if (agent, at, offset) not in run.buried and not run.was_told(agent, at, offset):
                    yield Finding(Kind.SKIPPED, agent, f"{where} is not there any more, and is committed up to {position}")
            elif not run.accounts_for(agent, record) and not run.was_told(agent, at, offset):
                if taken is not None and (at, offset) not in taken:
                    yield Finding(Kind.SKIPPED, agent, f"{where} was never taken, and is committed up to {position}: {_named(record)}")
                else:
                    yield Finding(Kind.LOST, agent, f"{where} is committed, and nothing came of it: {_named(record)}")


def _missing(run: Run) -> Iterator[Finding]:
    for told in run.published:
        record = run.partitions.get(told.at, {}).get(told.offset)
        if record is None or record.event_id != told.event_id:
            yield Finding(Kind.LOST, "", f"{told.at.topic}/{told.at.partition}@{told.offset} was acknowledged for event {told.event_id}")
    for step, ends in run.steps.items():
        completed = next((end for end in ends if end.outcome is Outcome.COMPLETED), None)
        if completed is None or not all(run.passed(completed.agent, parent) for parent in completed.parents):
            continue
        if any(end.outcome is Outcome.COMPENSATED for end in ends):
            continue  # what had not left when it was undone never does
        if any(
            run.was_told(completed.agent, place.at, place.offset) for parent in completed.parents for place in run.by_id.get(parent, ())
        ):
            continue  # nor does what had not left when a process died whose successor found the input deleted
        for event_id, _ in completed.outputs:
            if event_id not in run.by_id:
                yield Finding(Kind.LOST, completed.agent, f"step {step} is committed, and its output {event_id} is on no topic")


def _doubled(run: Run) -> Iterator[Finding]:
    for (agent, trigger), calls in run.calls.items():
        keys = sorted({call.key for call in calls})
        if len(keys) > 1:
            yield Finding(Kind.DOUBLED, agent, f"{len(keys)} keys because of event {trigger}: {', '.join(keys)}")
        done = [end for end in run.by_cause.get((agent, trigger), ()) if end.outcome is Outcome.COMPLETED]
        # Brokers tell whole milliseconds; within one, nobody can say which came first.
        late = [call for call in calls if done and int(call.time_ms) > int(done[0].time_ms)]
        if late:
            after = late[0].time_ms - done[0].time_ms
            yield Finding(Kind.DOUBLED, agent, f"step {done[0].step} was done {after:.0f} ms before {len(late)} of its {len(calls)} calls")


def _reordered(run: Run) -> Iterator[Finding]:
    """Seen in three places: the journal, the topics of outputs, the witness."""
    seen: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for end in sorted((end for ends in run.steps.values() for end in ends), key=lambda end: end.order):
        # Commands about a flow that is being undone are answered in any order.
        if len(end.parents) == 1 and end.flow not in run.commanded:
            seen[end.agent, end.flow, "the journal"].append(end.parents[0])
    for at, records in run.partitions.items():
        for record in records.values():
            if record.maker and record.parent is not None:
                seen[record.maker, record.flow, at.topic].append(record.parent)
    for call in sorted(call for calls in run.calls.values() for call in calls):
        flow = next((record.flow for record in run.by_id.get(call.trigger, ())), "")
        seen[call.agent, flow, "the witness"].append(call.trigger)
    for (agent, flow, where), triggers in seen.items():
        last: dict[TopicPartition, int] = {}
        for trigger in dict.fromkeys(triggers):
            place = _first(run, agent, trigger)
            if place is None:
                continue
            if place.offset < last.get(place.at, -1):
                behind = f"{place.at.topic}/{place.at.partition}@{place.offset} comes after @{last[place.at]}"
                yield Finding(Kind.REORDERED, agent, f"flow {flow}, as {where} has it: {behind}")
            last[place.at] = max(place.offset, last.get(place.at, -1))


def _first(run: Run, agent: str, event_id: str) -> Stored | None:
    """Where an agent met an event first: what lies before its beginning it never read."""
    return next((r for r in run.by_id.get(event_id, ()) if r.offset >= run.ranges.get((agent, r.at), (0, 0))[0]), None)


def _without_effect(run: Run) -> Iterator[Finding]:
    for step, ends in run.steps.items():
        done = next((end for end in ends if end.outcome is Outcome.COMPLETED), None)
        # A join acts because of the part that came last, and the journal does not say which that was.
        if done is not None and done.agent in run.witnessed and not any((done.agent, parent) in run.calls for parent in done.parents):
            because = " or ".join(done.parents)
            yield Finding(Kind.NO_EFFECT, done.agent, f"step {step} completed, and the witness was never called because of event {because}")


def _without_input(run: Run) -> Iterator[Finding]:
    for records in run.partitions.values():
        for record in records.values():
            if record.parent is not None and record.parent not in run.by_id:
                yield Finding(Kind.NO_INPUT, record.maker, f"{_named(record)}: its parent {record.parent} is on no topic")
            elif record.maker and record.parent is None:
                yield Finding(Kind.NO_INPUT, record.maker, f"{_named(record)}: made by an agent, and names no parent")
            elif record.parent is not None and _owes_a_step(run, record.maker, record):
                yield Finding(Kind.NO_INPUT, record.maker, f"{_named(record)}: no step of it is journaled")
    for step, ends in run.steps.items():
        for parent in dict.fromkeys(parent for end in ends for parent in end.parents):
            if parent not in run.by_id:
                yield Finding(Kind.NO_INPUT, ends[0].agent, f"step {step} is journaled because of event {parent}, which is on no topic")
    for agent, at, offset in run.buried:
        # A topic that retention has cut keeps its letters longer than its records.
        if offset not in run.partitions.get(at, {}) and offset >= min(run.partitions.get(at, {0: None})):
            yield Finding(Kind.NO_INPUT, agent, f"a dead letter of {at.topic}/{at.partition}@{offset}, where nothing lies")


def _contradicted(run: Run) -> Iterator[Finding]:
    for step, ends in run.steps.items():
        outcomes = sorted({end.outcome.value for end in ends if end.outcome in _EXCLUSIVE})
        if len(outcomes) > 1 and not run.is_pure(ends):
            yield Finding(Kind.CONTRADICTED, _agent(ends), f"step {step} ended {' and '.join(outcomes)}")
        completions = {end.outputs for end in ends if end.outcome is Outcome.COMPLETED}
        if len(completions) > 1 and len({tuple(e for e, _ in outputs) for outputs in completions}) == 1:
            yield Finding(Kind.CONTRADICTED, _agent(ends), f"step {step} completed {len(completions)} times with other values")
    refused = {(at, offset) for _, at, offset in run.buried}
    for event_id, records in run.by_id.items():
        # Of those that an agent refused, nothing came.
        digests = {record.digest for record in records if (record.at, record.offset) not in refused}
        if len(digests) > 1:
            yield Finding(
                Kind.CONTRADICTED, records[0].maker, f"event {event_id} lies on {records[0].at.topic} with {len(digests)} contents"
            )
    for (agent, at, offset), letter in run.buried.items():
        record = run.partitions.get(at, {}).get(offset)
        if record is None or letter.reason in _NOBODYS_STEP:
            continue
        if not any(end.outcome is Outcome.COMPLETED for end in run.by_cause.get((agent, record.event_id), ())):
            continue
        others = [r for r in run.by_id.get(record.event_id, ()) if (agent, r.at, r.offset) not in run.buried]
        if not others or any(other.digest == record.digest for other in others):
            yield Finding(Kind.CONTRADICTED, agent, f"{_named(record)} is a dead letter ({letter.reason}), and its step completed")


def _multiplied(run: Run) -> Iterator[Finding]:
    declared: dict[tuple[str, tuple[str, ...]], dict[str, None]] = defaultdict(dict)
    for step, ends in run.steps.items():
        completions = list(dict.fromkeys(tuple(event_id for event_id, _ in e.outputs) for e in ends if e.outcome is Outcome.COMPLETED))
        if len(completions) > 1:
            yield Finding(Kind.MULTIPLIED, _agent(ends), f"step {step} declares other outputs when repeated: {completions}")
        for outcome in dict.fromkeys(end.outcome for end in ends):
            ids = {end.record_id for end in ends if end.outcome is outcome}
            if len(ids) > 1 and outcome in _TOLD_BY_ONE_ID:
                yield Finding(Kind.MULTIPLIED, _agent(ends), f"step {step} {outcome.value} under {len(ids)} journal ids")
        for end in ends:
            if end.parents:
                declared[end.agent, end.parents][step] = None
    for (agent, parents), steps in declared.items():
        if len(steps) > 1:
            yield Finding(Kind.MULTIPLIED, agent, f"{len(steps)} steps because of {', '.join(parents)}: {', '.join(steps)}")
    for event_id, records in run.by_id.items():
        maker, parent = records[0].maker, records[0].parent
        ends = run.by_cause.get((maker, parent), []) if maker and parent is not None else []
        promised = {output for end in ends for output, _ in end.outputs}
        if ends and event_id not in promised and not records[0].observed:
            yield Finding(Kind.MULTIPLIED, maker, f"{_named(records[0])}: none of the outputs that the step for {parent} declares")


def _early(run: Run) -> Iterator[Finding]:
    for tried in run.tried:
        for due in run.due.get((tried.agent, tried.trigger), ()):
            if due.time_ms < tried.time_ms < due.due_ms:
                detail = f"step {tried.step} was tried {due.due_ms - tried.time_ms:.0f} ms before it was due"
                yield Finding(Kind.EARLY, tried.agent, detail)


def _agent(ends: Sequence[Ended]) -> str:
    return next((end.agent for end in ends if end.agent), "")


def _owes_a_step(run: Run, maker: str, output: Stored) -> bool:
    """Agents journal what leads to their outputs, unless they only observe; what is not committed yet may still come."""
    parent = output.parent or ""
    return bool(maker) and not output.observed and (maker, parent) not in run.by_cause and run.passed(maker, parent)


def _named(record: Stored) -> str:
    where = f"{record.at.topic}/{record.at.partition}@{record.offset}"
    return f"event {record.event_id or 'without an id'} of flow {record.flow or 'unknown'} on {where}"


_LOOKS: Final[tuple[Callable[[Run], Iterator[Finding]], ...]] = (
    _lost_or_skipped, _missing, _doubled, _reordered, _without_effect, _without_input, _contradicted, _multiplied,
    _early, half_done,
)  # fmt: skip
