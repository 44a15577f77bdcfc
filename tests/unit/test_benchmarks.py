"""The benchmarks' own logic, without a broker: rows, floors, choosing cases. Nothing is timed here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Reader
from tests.benchmarks.__main__ import parse
from tests.benchmarks.agents import agent, all_agents
from tests.benchmarks.cases import CASES
from tests.benchmarks.events import Asked, counted, decode, encode, prefix_of, sample
from tests.benchmarks.order import Meter, Order, Report
from tests.benchmarks.rows import Floor, row, table, verdict, write_json

ORDER = Order(kafka="127.0.0.1:1", source="bench.asked", target="bench.out", group="g", events=10)


def test_every_case_runs_unless_some_are_named() -> None:
    assert parse([]).cases == []
    assert parse(["one-hop", "memory"]).cases == ["one-hop", "memory"]


def test_an_unknown_case_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(["two-hops"])
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert "'two-hops'" in said and all(name in said for name in CASES)


def test_a_row_holds_the_median_its_range_and_the_median_ratio_of_the_rounds() -> None:
    found = row("one-hop", "maypole pure", "throughput", "events/s", [40.0, 30.0, 50.0], "bare", [100.0, 100.0, 100.0])
    assert (found.value, found.low, found.high, found.ratio, found.of) == (40.0, 30.0, 50.0, 0.4, "bare")


def test_a_subject_that_is_compared_with_nothing_has_no_ratio() -> None:
    found = row("commands", "python -c pass", "time", "ms", [9.0])
    assert found.ratio is None and found.of is None


def test_the_json_has_the_fields_that_scripts_read(tmp_path: Path) -> None:
    path = tmp_path / "home" / "bench.json"
    write_json([row("one-hop", "maypole pure", "throughput", "events/s", [40.0], "bare", [100.0])], path)
    (found,) = json.loads(path.read_text())
    assert {name: found[name] for name in ("case", "subject", "metric", "value", "unit", "ratio", "of")} == {
        "case": "one-hop", "subject": "maypole pure", "metric": "throughput", "value": 40.0, "unit": "events/s", "ratio": 0.4, "of": "bare",
    }  # fmt: skip


def test_the_table_has_a_line_for_each_row_under_its_titles() -> None:
    lines = table([row("one-hop", "bare", "throughput", "events/s", [30_000.0, 20_000.0, 40_000.0])]).splitlines()
    assert lines[0].split() == ["case", "subject", "metric", "median", "range", "unit", "ratio", "of"]
    assert lines[2].split() == ["one-hop", "bare", "throughput", "30,000", "20,000..40,000", "events/s"]


@pytest.mark.parametrize(
    ("floor", "met"),
    [
        (Floor("ratio", 0.4, at_least=0.4), True),
        (Floor("ratio", 0.39, at_least=0.4), False),
        (Floor("ms", 201.0, at_most=200), False),
        (Floor("never measured", None, at_least=0.4), False),
    ],
)
def test_a_floor_is_met_or_says_what_it_expected(floor: Floor, met: bool) -> None:
    assert floor.met is met
    assert ("NOT MET" in str(floor)) is not met
    assert "expected" in str(floor)


def test_the_last_word_names_every_floor_that_was_not_met() -> None:
    kept, low, missing = Floor("a", 2.0, at_least=1), Floor("b", 0.5, at_least=1), Floor("c", None, at_most=1)
    assert verdict([kept, kept]) == "floors: all 2 met"
    told = verdict([kept, low, missing]).splitlines()
    assert told[0] == "floors: 2 of 3 NOT MET"
    assert [("b:" in line, "c:" in line) for line in told[1:]] == [(True, False), (False, True)]


def test_a_subject_reports_when_its_last_event_is_committed(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter(ORDER)
    meter.begin()
    assert not meter.committed(9)
    assert meter.committed(4), "a batch may hold more than was asked for"
    assert not meter.committed(1), "it reports once"
    assert Report(**json.loads(capsys.readouterr().out)).events == 10


def test_an_order_survives_its_way_to_the_subject() -> None:
    assert Order(**json.loads(ORDER.text)) == ORDER
    assert Order(**json.loads(replace(ORDER, tracing="sdk").text)).tracing == "sdk"


def test_all_subjects_write_the_same_bytes() -> None:
    """What the bare loops write, Maypole reads as its own event."""
    value = encode(sample(7), prefix_of(Asked))
    assert Reader(schema_of(Asked), Asked).decode(value).__dict__ == decode(value).__dict__


async def test_maypoles_handler_does_what_the_others_do() -> None:
    (subscription,) = agent("bench-pure").subscriptions
    returned = await subscription.handler(Asked(**sample(7).__dict__))  # type: ignore[misc]
    assert returned.__dict__ == counted(sample(7)).__dict__


def test_the_agents_of_the_benchmarks_can_be_declared() -> None:
    assert len({each.name for each in all_agents()}) == len(all_agents()) == 5
