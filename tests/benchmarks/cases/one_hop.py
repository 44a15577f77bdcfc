"""One hop under full load: consume, decode, validate, handle, encode, publish, commit, as fast as one process can."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tests.benchmarks.agents import PURE, RECORDED
from tests.benchmarks.bench import Bench, SubjectFailed, measure, say
from tests.benchmarks.events import Answered, Asked
from tests.benchmarks.order import Order, Report
from tests.benchmarks.prepare import create_topics, fill, pin_choreography, rewind
from tests.benchmarks.rows import Floor, Row, row

NAME: Final = "one-hop"
_OTHERS: Final = "bench.out"
BARE: Final = "bare confluent-kafka"
PURE_UNTRACED: Final = "maypole pure"
RECORDED_UNTRACED: Final = "maypole recorded"
PEERS: Final = ("faststream confluent", "faststream aiokafka")


@dataclass(frozen=True, slots=True)
class Subject:
    name: str
    module: str
    variant: str = ""
    tracing: Literal["off", "sdk"] = "off"

    @property
    def is_slow(self) -> bool:
        return self.module == "faststream"


SUBJECTS: Final = (
    Subject(BARE, "bare_confluent"),
    Subject("bare aiokafka", "bare_aiokafka"),
    Subject(PURE_UNTRACED, "maypole", PURE),
    Subject(RECORDED_UNTRACED, "maypole", RECORDED),
    Subject("maypole pure, traced", "maypole", PURE, "sdk"),
    Subject("faststream confluent", "faststream", "confluent"),
    Subject("faststream aiokafka", "faststream", "aiokafka"),
    Subject("faststream confluent, traced", "faststream", "confluent", "sdk"),
    Subject("faststream aiokafka, traced", "faststream", "aiokafka", "sdk"),
)


def run(bench: Bench) -> tuple[list[Row], list[Floor]]:
    # FastStream's last event counts when the next one begins.
    events = max(bench.events, bench.slow_events + 1)
    say(f"{NAME}: writing {events} events")
    create_topics(bench.kafka, [Asked.event_type, Answered.event_type, _OTHERS])
    fill(bench.kafka, Asked.event_type, Asked, pin_choreography(bench.kafka, bench.folder / "home", Asked), events)
    reports: dict[str, list[Report]] = {subject.name: [] for subject in SUBJECTS}
    failed: set[str] = set()
    for number in range(bench.rounds):
        for subject in SUBJECTS:
            if subject.name in failed:
                continue
            try:
                report = _measure(bench, subject)
            except SubjectFailed as error:
                say(f"{NAME}: left out: {error}")
                failed.add(subject.name)
                continue
            reports[subject.name].append(report)
            found = f"{report.events_per_second:,.0f}/s, {report.cpu_micros_per_event:.0f} us of CPU each"
            say(f"{NAME} {number + 1}/{bench.rounds}: {subject.name}: {found}")
    return _rows(reports, failed), _floors(reports, failed)


def _measure(bench: Bench, subject: Subject) -> Report:
    source = Asked.event_type
    group = subject.variant if subject.module == "maypole" else f"bench-{uuid.uuid4()}"
    if subject.module == "maypole":
        rewind(bench.kafka, group, source)
    target = Answered.event_type if subject.module == "maypole" else _OTHERS
    events = bench.slow_events if subject.is_slow else bench.events
    # Every round anew: what the ledger of the round before holds would only be published again.
    home = str(bench.folder / (f"home-{uuid.uuid4()}" if subject.variant == RECORDED else "home"))
    return measure(subject.module, Order(bench.kafka, source, target, group, events, subject.variant, subject.tracing, bench.otlp, home))


def _rows(reports: dict[str, list[Report]], failed: set[str]) -> list[Row]:
    rows = []
    for name, measured in reports.items():
        if name in failed:
            continue
        rows.append(row(NAME, name, "throughput", "events/s", _speeds(measured), BARE, _speeds(reports[BARE])))
        rows.append(row(NAME, name, "cpu", "us/event", _costs(measured), BARE, _costs(reports[BARE])))
    return rows


def _speeds(reports: Sequence[Report]) -> list[float]:
    return [report.events_per_second for report in reports]


def _costs(reports: Sequence[Report]) -> list[float]:
    return [report.cpu_micros_per_event for report in reports]


def _floors(reports: dict[str, list[Report]], failed: set[str]) -> list[Floor]:
    """Of the bare loop a pure step reaches 0.4 and a recorded one 0.2; a pure one is ten times FastStream, on either client."""

    def ratio(ours: str, others: str) -> float | None:
        if {ours, others} & failed:
            return None
        return row(NAME, ours, "", "", _speeds(reports[ours]), others, _speeds(reports[others])).ratio

    return [
        Floor(f"{PURE_UNTRACED} against {BARE}", ratio(PURE_UNTRACED, BARE), at_least=0.4),
        Floor(f"{RECORDED_UNTRACED} against {BARE}", ratio(RECORDED_UNTRACED, BARE), at_least=0.2),
        *(Floor(f"{PURE_UNTRACED} against {peer}", ratio(PURE_UNTRACED, peer), at_least=10) for peer in PEERS),
    ]
