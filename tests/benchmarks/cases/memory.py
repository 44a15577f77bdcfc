"""Memory of an agent process that handles many events: how much, and whether it grows."""

from __future__ import annotations

from typing import Final

from tests.benchmarks.agents import PURE
from tests.benchmarks.bench import Bench, SubjectFailed, measure, say
from tests.benchmarks.events import Answered, Asked
from tests.benchmarks.order import Order
from tests.benchmarks.prepare import create_topics, fill, pin_choreography, rewind
from tests.benchmarks.rows import Floor, Row

NAME: Final = "memory"
SUBJECT: Final = "maypole pure"


def run(bench: Bench) -> tuple[list[Row], list[Floor]]:
    """Resident memory after a tenth of the events, after all of them, and the highest in between."""
    create_topics(bench.kafka, [Asked.event_type, Answered.event_type])
    say(f"{NAME}: writing {bench.memory_events} events")
    fill(bench.kafka, Asked.event_type, Asked, pin_choreography(bench.kafka, bench.folder / "home", Asked), bench.memory_events)
    rewind(bench.kafka, PURE, Asked.event_type)
    order = Order(bench.kafka, Asked.event_type, "", PURE, bench.memory_events, PURE, home=str(bench.folder / "home"))
    try:
        report = measure("maypole", order)
    except SubjectFailed as error:
        say(f"{NAME}: left out: {error}")
        return [], []
    rows = [
        Row(NAME, SUBJECT, "resident after a tenth", report.early_mib, "MiB"),
        Row(NAME, SUBJECT, "resident at the end", report.late_mib, "MiB", report.late_mib / report.early_mib, "after a tenth"),
        Row(NAME, SUBJECT, "highest", report.peak_mib, "MiB"),
    ]
    return rows, []
