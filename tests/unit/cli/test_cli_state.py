"""State lies beside one cluster; that of another one stays where it is, and is spoken of once."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from maypole.bus import Agent
from maypole.services.cli.running import kept_meanwhile, settle


def test_agents_at_another_cluster_say_once_that_they_begin_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "old" / "agents").mkdir(parents=True)
    new = tmp_path / "new"
    with caplog.at_level(logging.WARNING):
        settle(new)
        assert [record.message for record in caplog.records] == ["state.other_cluster"]
        assert "old, which stays" in vars(caplog.records[0])["found"]
        new.mkdir()
        settle(new)
    assert len(caplog.records) == 1
    assert (tmp_path / "old" / "agents").exists()


def test_the_first_cluster_of_all_is_nothing_to_speak_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settle(tmp_path / "clusters" / "first")
    assert caplog.records == []


def test_what_other_processes_keep_beside_the_broker_of_dev_is_left_to_them(tmp_path: Path) -> None:
    mine, theirs = (tmp_path / "clusters" / "mock" / "agents" / name for name in ("mine", "theirs"))
    with kept_meanwhile(tmp_path / "clusters" / "mock", [Agent("mine")]):
        for folder in (mine, theirs, tmp_path / "clusters" / "mock" / "coordinator"):
            folder.mkdir(parents=True)
    assert not mine.exists() and not (tmp_path / "clusters" / "mock" / "coordinator").exists()
    assert theirs.exists()


def test_a_broker_of_which_nobody_else_kept_anything_leaves_no_folder(tmp_path: Path) -> None:
    home = tmp_path / "clusters" / "mock"
    with kept_meanwhile(home, [Agent("mine")]):
        (home / "agents" / "mine").mkdir(parents=True)
    assert not (tmp_path / "clusters").exists()
