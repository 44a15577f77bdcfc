"""Memory of an agent process that handles many events: how much, and whether it grows."""

from __future__ import annotations

from typing import Final

from tests.benchmarks.agents import PURE, RECORDED
from tests.benchmarks.bench import Bench, SubjectFailed, measure, say
from tests.benchmarks.events import Answered, Asked
from tests.benchmarks.order import Order
from tests.benchmarks.prepare import create_topics, fill, pin_choreography, rewind
from tests.benchmarks.rows import Floor, Row

NAME: Final = "memory"
SUBJECTS: Final = {"maypole pure": PURE, "maypole recorded": RECORDED}
RESIDENT_MIB_MAX: Final = 120
GROWTH_MAX: Final = 1.1
"""From a tenth of the events on: by then the caches are as full as they get."""


def run(bench: Bench) -> tuple[list[Row], list[Floor]]:
    """Resident memory after a tenth of the events, after all of them, and the highest in between."""
    create_topics(bench.kafka, [Asked.event_type, Answered.event_type])
    say(f"{NAME}: writing {bench.memory_events} events")
    fill(bench.kafka, Asked.event_type, Asked, pin_choreography(bench.kafka, bench.folder / "home", Asked), bench.memory_events)
    rows: list[Row] = []
    floors: list[Floor] = []
    for name, agent in SUBJECTS.items():
        rewind(bench.kafka, agent, Asked.event_type)
        order = Order(bench.kafka, Asked.event_type, "", agent, bench.memory_events, agent, home=str(bench.folder / "home"))
        try:
            report = measure("maypole", order)
        except SubjectFailed as error:
            say(f"{NAME}: left out: {error}")
            continue
        say(f"{NAME}: {name}: {report.early_mib:.0f} MiB after a tenth, {report.late_mib:.0f} at the end, {report.peak_mib:.0f} at most")
        growth = report.late_mib / report.early_mib
        rows += [
            Row(NAME, name, "resident after a tenth", report.early_mib, "MiB"),
            Row(NAME, name, "resident at the end", report.late_mib, "MiB", growth, "after a tenth"),
            Row(NAME, name, "highest", report.peak_mib, "MiB"),
        ]
        floors += [
            Floor(f"{name}: highest resident memory in MiB", report.peak_mib, at_most=RESIDENT_MIB_MAX),
            Floor(f"{name}: memory at the end against that after a tenth", growth, at_most=GROWTH_MAX),
        ]
    return rows, floors
