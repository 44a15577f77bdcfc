"""The committed schemas are those of the classes, and never break what was committed before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maypole.schemas import archive
from maypole.schemas.__main__ import main
from maypole.schemas.archive import FOLDER, changes, shipped_events, strays, versions, write
from maypole.schemas.compatibility import explain_all
from maypole.schemas.errors import UnsafeSchema
from maypole.schemas.event import Event


def declare(doc: str = "", /, **fields: Any) -> type[Event]:
    annotations = {name: kind if not isinstance(kind, tuple) else kind[0] for name, kind in fields.items()}
    defaults = {name: kind[1] for name, kind in fields.items() if isinstance(kind, tuple)}
    body = {"__annotations__": annotations, "__module__": __name__, "__doc__": doc, **defaults}
    return type("Kept", (Event,), body, type="test.kept")


def commit(folder: Path, event: type[Event]) -> list[Path]:
    pending = changes([event], folder)
    assert not any(change.refusals for change in pending)
    for change in pending:
        write(change)
    return [change.path for change in pending]


def test_the_committed_schemas_are_those_of_the_classes() -> None:
    assert [change.path.name for change in changes(shipped_events())] == [], "run make schemas"


@pytest.mark.parametrize("event", shipped_events(), ids=lambda event: event.event_type)
def test_every_committed_version_reads_all_before_it(event: type[Event]) -> None:
    committed = versions(event.event_type)

    assert [version.number for version in committed] == list(range(1, len(committed) + 1))
    for index, version in enumerate(committed):
        assert explain_all(version.schema, [(old.path.name, old.schema) for old in committed[:index]]) == []


def test_no_committed_type_has_lost_its_class() -> None:
    assert strays(shipped_events()) == []


def test_the_events_of_the_reference_agents_and_of_the_journal_ship() -> None:
    types = {event.event_type for event in shipped_events()}

    assert {"research.requested", "research.completed", "analysis.ready", "report.published", "maypole.step.completed"} <= types
    assert FOLDER.is_dir()


def test_a_compatible_change_is_a_new_version_beside_the_old(tmp_path: Path) -> None:
    assert commit(tmp_path, declare(a=int)) == [tmp_path / "test.kept" / "1.avsc"]
    assert commit(tmp_path, declare(a=int)) == []
    assert commit(tmp_path, declare(a=int, b=(int, 0))) == [tmp_path / "test.kept" / "2.avsc"]
    assert [version.number for version in versions("test.kept", tmp_path)] == [1, 2]


def test_a_change_that_cannot_read_the_oldest_version_is_refused(tmp_path: Path) -> None:
    commit(tmp_path, declare(a=int))
    commit(tmp_path, declare(a=int, b=(int, 0)))

    (change,) = changes([declare(a=int, b=int)], tmp_path)

    assert [(name, problem.path) for name, problem in change.refusals] == [("1.avsc", "b")]


def test_documentation_changes_the_newest_file_and_no_version(tmp_path: Path) -> None:
    commit(tmp_path, declare("before", a=int))

    assert commit(tmp_path, declare("after", a=int)) == [tmp_path / "test.kept" / "1.avsc"]
    assert "after" in (tmp_path / "test.kept" / "1.avsc").read_text()


def test_the_command_writes_checks_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(event: type[Event], *options: str) -> int:
        monkeypatch.setattr("maypole.schemas.__main__.shipped_events", lambda: [event])
        return main(["--folder", str(tmp_path), *options])

    assert run(declare(a=int), "--check") == 1
    assert "run make schemas" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert run(declare(a=int)) == 0
    assert run(declare(a=int), "--check") == 0
    assert run(declare(a=int, b=int)) == 1
    assert "1.avsc: b: expected a default, because what was written before lacks the field" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "test.kept").iterdir()] == ["1.avsc"]


@pytest.mark.parametrize(("name", "text"), [("1.avsc", "{"), ("first.avsc", '"int"')])
def test_a_damaged_archive_is_told_by_file(tmp_path: Path, name: str, text: str) -> None:
    folder = tmp_path / "test.kept"
    folder.mkdir()
    (folder / name).write_text(text)

    with pytest.raises(UnsafeSchema, match=name):
        archive.versions("test.kept", tmp_path)
