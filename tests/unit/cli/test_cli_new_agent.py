from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from maypole.schemas.avro import Schema
from maypole.services.cli.agent_template import Draft
from maypole.services.cli.event_types import EventType, known_types
from tests.unit.cli.conftest import Maypole

_ID = {"name": "id", "type": {"type": "string", "logicalType": "uuid"}}
_AMOUNT = {"name": "amount", "type": "long"}
ORDER_PLACED = Schema.parse({"type": "record", "name": "order.OrderPlaced", "fields": [_ID, _AMOUNT]})
ANNOUNCED = EventType("order.placed", ORDER_PLACED, None, ("shop",))


@pytest.mark.parametrize("on", [*sorted(known_types(None)), "order.placed", "never.heard-of"])
def test_a_new_agent_has_at_most_fifteen_lines_and_runs_with_its_test(tmp_path: Path, on: str) -> None:
    known = {**known_types(None), "order.placed": ANNOUNCED}
    draft = Draft("try-out", on, known.get(on), "try.tried_out", None)
    assert len([line for line in draft.agent().splitlines() if line.strip()]) <= 15
    agent, test = tmp_path / "try_out.py", tmp_path / "test_try_out.py"
    agent.write_text(draft.agent())
    test.write_text(draft.test())
    code = (
        "import test_try_out, try_out; [f() for n, f in vars(test_try_out).items() if n.startswith('test_')]; try_out.try_out.declaration()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)
    for tool in (["check"], ["format", "--check"]):
        ruff = subprocess.run(
            [sys.executable, "-m", "ruff", *tool, "--isolated", "--no-cache", "."], cwd=tmp_path, capture_output=True, text=True
        )
        assert ruff.returncode == 0, ruff.stdout


def test_it_uses_the_fields_that_another_agent_announced() -> None:
    draft = Draft("audit", "order.placed", ANNOUNCED, "order.audited", None)
    assert 'amount=event["amount"]' in draft.agent()


def test_both_files_are_written_and_named_on_standard_output(maypole: Maypole) -> None:
    ran = maypole("new", "agent", "translate", "--on", "report.published", "--emits", "report.translated")
    assert ran.code == 0
    assert ran.out.split() == ["translate.py", "test_translate.py"]
    assert "maypole run translate.py" in ran.err
    assert "@translate.on(ReportPublished)" in Path("translate.py").read_text()


@pytest.mark.parametrize("there", ["translate.py", "test_translate.py"])
def test_a_file_that_is_there_is_never_overwritten(maypole: Maypole, there: str) -> None:
    Path(there).write_text("mine")
    ran = maypole("new", "agent", "translate", "--on", "report.published", "--emits", "report.translated")
    assert ran.code == 2
    assert there in ran.err
    assert [(path.name, path.read_text()) for path in Path().glob("*.py")] == [(there, "mine")]


@pytest.mark.parametrize(
    ("name", "on", "emits", "said"),
    [
        ("Bad Name", "a.b", "c.d", "lower-case letters"),
        ("types", "a.b", "c.d", "something that Python already uses"),
        ("good", "nodot", "c.d", "expected an event type"),
        ("good", "a.b", "Loud.Type", "expected an event type"),
        ("good", "a.b", "maypole.journal", "platform"),
        ("good", "a.b", "a.b", "two different types"),
        ("good", "research.completed", "report.published", "has nothing for its field 'title'"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_is_written(maypole: Maypole, name: str, on: str, emits: str, said: str) -> None:
    ran = maypole("new", "agent", name, "--on", on, "--emits", emits)
    assert ran.code == 2
    assert said in ran.err
    assert list(Path().glob("*.py")) == []
