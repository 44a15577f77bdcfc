"""What a run comes to: counts, findings, and the table of all subjects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from maypole.bus.testing.history import check, open_inputs
from maypole.bus.testing.history_entries import Called, Ended, Entry, Stored
from maypole.bus.testing.history_findings import Finding, Kind
from tests.torture.crew import Toll


@dataclass(frozen=True, slots=True)
class Verdict:
    """`open` are inputs that nothing came of and that nobody gets past, once the run had time to come to rest."""

    subject: str
    seconds: float
    toll: Toll
    events: int
    calls: int
    repeated_calls: int
    repeated_outputs: int
    findings: Sequence[Finding]
    open: int

    def count(self, kind: Kind, agent: str | None = None) -> int:
        return sum(finding.kind is kind and agent in (None, finding.agent) for finding in self.findings)


def judge(subject: str, seconds: float, toll: Toll, history: Sequence[Entry]) -> Verdict:
    calls = Counter((entry.agent, entry.trigger, entry.key) for entry in history if isinstance(entry, Called))
    outputs = Counter(entry.event_id for entry in history if isinstance(entry, Stored))
    return Verdict(
        subject=subject,
        seconds=seconds,
        toll=toll,
        events=outputs.total() + sum(isinstance(entry, Ended) for entry in history),
        calls=calls.total(),
        repeated_calls=calls.total() - len(calls),
        repeated_outputs=outputs.total() - len(outputs),
        findings=check(history),
        open=len(open_inputs(history)),
    )


_COLUMNS = (
    "subject", "seconds", "kills", "broker kills", "database restarts", "stops", "records", "calls", "lost", "skipped", "doubled effects",
    "reordered", "contradicted", "multiplied", "no effect", "no input", "blocked", "ended by itself",
)  # fmt: skip


def table(verdicts: Sequence[Verdict]) -> str:
    """Markdown, a line for each subject."""
    lines = [_COLUMNS, tuple("---" for _ in _COLUMNS), *(_cells(verdict) for verdict in verdicts)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(verdict: Verdict) -> tuple[str, ...]:
    kinds = (
        Kind.LOST, Kind.SKIPPED, Kind.DOUBLED, Kind.REORDERED, Kind.CONTRADICTED, Kind.MULTIPLIED, Kind.NO_EFFECT, Kind.NO_INPUT,
    )  # fmt: skip
    toll = verdict.toll
    counts = (toll.killed, toll.broker_kills, toll.store_restarts, toll.stops, verdict.events, verdict.calls)
    found = (*(verdict.count(kind) for kind in kinds), verdict.open, len(toll.failures))
    return (verdict.subject, f"{verdict.seconds:.0f}", *(f"{count:,}" for count in (*counts, *found)))


def points_of(toll: Toll) -> str:
    return ", ".join(f"{point} {count:,}" for point, count in sorted(toll.kills.items())) or "nowhere"


def notes(verdict: Verdict, each: int = 3) -> str:
    """Where it was killed, what was repeated, and the first few findings of each kind, for whoever has to find out why."""
    repeated = f"{verdict.repeated_calls:,} calls and {verdict.repeated_outputs:,} records repeated under the same id"
    lines = [f"{verdict.subject}: killed at {points_of(verdict.toll)}; {repeated}"]
    for kind in Kind:
        of_kind = [finding for finding in verdict.findings if finding.kind is kind]
        lines += [f"  {kind.value}: {finding.agent}: {finding.detail}" for finding in of_kind[:each]]
    return "\n".join([*lines, *(f"  ended by itself: {failure}" for failure in verdict.toll.failures[:each])])
