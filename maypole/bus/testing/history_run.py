"""A history, sorted and indexed so that questions about it are short."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from maypole.bus.ports import TopicPartition
from maypole.bus.testing.history_entries import (
    Began,
    Buried,
    Called,
    Closed,
    Committed,
    Due,
    Ended,
    Entry,
    Missed,
    Outcome,
    Pinned,
    Published,
    Started,
    Stored,
    Taken,
    TakenBack,
    Tried,
    Witnessed,
)  # fmt: skip
from maypole.schemas.identifiers import EventId, FlowId, step_id_of


@dataclass(slots=True)
class Run:
    """A history, indexed. Records of a partition by offset, of an event and of a step in their order."""

    partitions: dict[TopicPartition, dict[int, Stored]] = field(default_factory=lambda: defaultdict(dict))
    by_id: dict[str, list[Stored]] = field(default_factory=lambda: defaultdict(list))
    published: list[Published] = field(default_factory=list)
    ranges: dict[tuple[str, TopicPartition], tuple[int, int]] = field(default_factory=dict)
    """First offset and committed position of each partition of each agent."""
    taken: dict[str, set[tuple[TopicPartition, int]]] = field(default_factory=lambda: defaultdict(set))
    pinned: dict[str, frozenset[str]] = field(default_factory=dict)
    pure: set[tuple[str, str]] = field(default_factory=set)
    joins: set[tuple[str, str]] = field(default_factory=set)
    expiring: set[tuple[str, str]] = field(default_factory=set)
    decided: set[tuple[str, str]] = field(default_factory=set)
    """Agents and flows of which they have journaled something."""
    started: dict[str, str] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    """Flows of which some step did not complete, or was undone."""
    commanded: set[str] = field(default_factory=set)
    """Those of them whose agents were told so."""
    steps: dict[str, list[Ended]] = field(default_factory=lambda: defaultdict(list))
    by_cause: dict[tuple[str, str], list[Ended]] = field(default_factory=lambda: defaultdict(list))
    """What an agent journaled because of an event."""
    buried: dict[tuple[str, TopicPartition, int], Buried] = field(default_factory=dict)
    calls: dict[tuple[str, str], list[Called]] = field(default_factory=lambda: defaultdict(list))
    taken_back: dict[tuple[str, str], list[TakenBack]] = field(default_factory=lambda: defaultdict(list))
    witnessed: set[str] = field(default_factory=set)
    tried: list[Tried] = field(default_factory=list)
    due: dict[tuple[str, str], list[Due]] = field(default_factory=lambda: defaultdict(list))
    missed: dict[tuple[str, TopicPartition], list[Missed]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, history: Iterable[Entry]) -> Run:
        run = cls()
        began: dict[tuple[str, TopicPartition], int] = {}
        committed: dict[tuple[str, TopicPartition], int] = {}
        starts: list[Started] = []
        closings: list[Closed] = []
        ends: list[Ended] = []
        for entry in history:
            match entry:
                case Stored():
                    run.partitions[entry.at][entry.offset] = entry
                case Ended():
                    ends.append(entry)
                case Called():
                    run.calls[entry.agent, entry.trigger].append(entry)
                case TakenBack():
                    run.taken_back[entry.agent, entry.trigger].append(entry)
                case Closed():
                    closings.append(entry)
                case Published():
                    run.published.append(entry)
                case Taken():
                    run.taken[entry.agent].add((entry.at, entry.offset))
                case Buried():
                    run.buried[entry.agent, entry.at, entry.offset] = entry
                case Began():
                    began[entry.agent, entry.at] = min(entry.offset, began.get((entry.agent, entry.at), entry.offset))
                case Committed():
                    committed[entry.agent, entry.at] = max(entry.position, committed.get((entry.agent, entry.at), 0))
                case Started():
                    starts.append(entry)
                case Pinned():
                    run.pinned[entry.choreography] = entry.agents
                    run.pure |= entry.pure
                    run.joins |= entry.joins
                    run.expiring |= entry.expiring
                case Tried():
                    run.tried.append(entry)
                case Due():
                    run.due[entry.agent, entry.event_id].append(entry)
                case Missed():
                    run.missed[entry.agent, entry.at].append(entry)
                case Witnessed():
                    run.witnessed.add(entry.agent)
        for start in sorted(starts):
            run.started.setdefault(start.flow, start.choreography)
        for end in sorted(ends, key=lambda end: end.order):
            run.steps[end.step].append(end)
            run.decided.add((end.agent, end.flow))
            if end.outcome is not Outcome.COMPLETED:
                run.failed.add(end.flow)
            if end.outcome in (Outcome.FENCED, Outcome.COMPENSATED):
                run.commanded.add(end.flow)
            for parent in end.parents:
                run.by_cause[end.agent, parent].append(end)
        run.closed = {closing.flow: closing.state for closing in sorted(closings)}
        for calls in run.calls.values():
            calls.sort()
        for undone in run.taken_back.values():
            undone.sort()
        for at, records in sorted(run.partitions.items()):
            run.partitions[at] = dict(sorted(records.items()))
            for record in run.partitions[at].values():
                if record.event_id:
                    run.by_id[record.event_id].append(record)
        for key in sorted(began.keys() | committed.keys()):
            first = began.get(key, 0)
            run.ranges[key] = (first, max(first, committed.get(key, first)))
        return run

    def accounts_for(self, agent: str, record: Stored) -> bool:
        """Something came of this input, or nothing had to."""
        if (agent, record.at, record.offset) in self.buried or (agent, record.event_id) in self.by_cause:
            return True
        if step_id_of(FlowId(record.flow), agent, record.at.topic, EventId(record.event_id)) in self.steps:
            return True
        if (agent, record.at.topic) in self.joins and record.flow in self.failed:
            return True  # what it waited for never came
        if (agent, record.at.topic) in self.expiring and (agent, record.flow) in self.decided:
            return True  # it came too late
        members = self.pinned.get(record.choreography or self.started.get(record.flow, ""))
        return record.observed or (members is not None and agent not in members)

    def is_pure(self, ends: Sequence[Ended]) -> bool:
        """Whether a step has no row that decides between its ends: a fence proves nothing there, nor does a failure."""
        return any(
            (end.agent, record.at.topic) in self.pure for end in ends for parent in end.parents for record in self.by_id.get(parent, ())
        )

    def was_told(self, agent: str, at: TopicPartition, offset: int) -> bool:
        """The agent said that this record had been deleted before it could read it."""
        return any(missed.wanted <= offset < missed.oldest for missed in self.missed.get((agent, at), ()))

    def passed(self, agent: str, event_id: str) -> bool:
        """Some record of this event lies before what the agent has committed."""
        return any(
            first <= record.offset < position
            for record in self.by_id.get(event_id, ())
            for first, position in [self.ranges.get((agent, record.at), (0, 0))]
        )
