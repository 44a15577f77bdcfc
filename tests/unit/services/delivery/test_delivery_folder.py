from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from maypole.services.delivery import folder
from maypole.services.delivery.destinations import DestinationRefused


def test_a_report_is_put_into_a_folder_that_is_made_for_it(tmp_path: Path) -> None:
    path = folder.put(tmp_path / "a" / "b", "report.md", "Text — mit Ümlaut\n")
    assert path == tmp_path / "a" / "b" / "report.md"
    assert path.read_bytes() == "Text — mit Ümlaut\n".encode()
    assert [file.name for file in path.parent.iterdir()] == ["report.md"]


def test_a_repetition_replaces_what_it_left(tmp_path: Path) -> None:
    folder.put(tmp_path, "report.md", "once, and longer")
    assert folder.put(tmp_path, "report.md", "twice").read_text() == "twice"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DestinationRefused, match=r"expected a folder to write the report to, found that .*/file is a file"):
            folder.put(place, "report.md", "text")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_in_the_place_of_the_file_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "report.md").mkdir()
    with pytest.raises(DestinationRefused, match="cannot be written"):
        folder.put(tmp_path, "report.md", "text")
    assert [file.name for file in tmp_path.iterdir()] == ["report.md"]


def test_a_folder_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(DestinationRefused, match=r"expected a folder to write the report to, found that /proc(/self)? cannot be written"):
        folder.put(Path("/proc/self/reports"), "report.md", "text")


def test_a_full_disk_may_be_mended_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.put(tmp_path, "report.md", "text")
    assert list(tmp_path.iterdir()) == []
