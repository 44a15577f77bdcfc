"""Tables, log lines, problems, and the name that commands are printed under."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import click
import pytest

from maypole.bus.ports import BrokerUnreachable
from maypole.schemas.errors import ContractRefused
from maypole.services.cli import program
from maypole.services.cli.log_lines import LogLines
from maypole.services.cli.output import print_object, print_rows, table
from maypole.services.cli.problems import ExitCode, Problem, explained


def test_a_table_aligns_words_left_and_numbers_right() -> None:
    lines = [click.unstyle(line) for line in table([["a", "7", "-"], ["long name", "12", "-"]], ["NAME", "COUNT", "NOTE"])]
    assert lines == ["NAME       COUNT  NOTE", "a              7  -", "long name     12  -"]


def test_json_has_every_field_and_a_table_only_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, object]] = [{"a": 1, "b": None}, {"a": 2, "b": ["x", "y"]}]
    print_rows(rows, "json", {"a": "A"})
    assert json.loads(capsys.readouterr().out) == rows
    print_rows(rows, "jsonl", {"a": "A"})
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    print_rows(rows, "table", {"b": "B"})
    assert capsys.readouterr().out.split("\n") == ["B", "-", "x, y", ""]
    print_rows([], "table", {"b": "B"})
    assert capsys.readouterr().out == ""
    print_object({"a": True, "long": None}, "table")
    assert capsys.readouterr().out == "a     yes\nlong  -\n"


def test_a_log_line_has_its_event_and_flat_fields_and_quotes_what_has_blanks() -> None:
    record = logging.makeLogRecord(
        {"msg": "step.failed", "levelno": logging.WARNING, "levelname": "WARNING", "agent": "a", "error": 'two "words"', "n": 3}
    )
    assert LogLines(coloured=False).format(record)[9:] == r'warning step.failed agent=a error="two \"words\"" n=3'
    assert "\x1b[33m" in LogLines(coloured=True).format(record)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Problem("p", ExitCode.NOT_FOUND), 3),
        (BrokerUnreachable("b"), 5),
        (ContractRefused(field="f", value=1, rule="r"), 2),
        (KeyboardInterrupt(), 130),
        (asyncio.CancelledError(), 130),
        (PermissionError("p"), 1),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [BrokerUnreachable("b")]), ValueError()]), 5),
    ],
)
def test_known_errors_have_their_exit_code(error: BaseException, code: int) -> None:
    found = explained(error)
    assert found is not None
    assert found.code == code


def test_an_unknown_error_is_nobodys_mistake() -> None:
    assert explained(ZeroDivisionError()) is None


def test_commands_are_printed_as_they_have_to_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / ".venv" / "bin" / "maypole"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("sys.argv", [".venv/bin/maypole", "demo"])
    assert program.command("publish", "a.b", "--data", '{"a": 1}') == """.venv/bin/maypole publish a.b --data '{"a": 1}'"""
    assert (
        program.in_text("see `maypole dev`, not maypole.toml; maypole run x.py")
        == "see `.venv/bin/maypole dev`, not maypole.toml; .venv/bin/maypole run x.py"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr("sys.argv", [str(binary)])
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert program.program() == str(binary)
    monkeypatch.setenv("PATH", str(binary.parent))
    assert program.program() == "maypole"
