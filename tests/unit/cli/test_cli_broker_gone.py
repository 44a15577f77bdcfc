"""Agents beside a broker in memory end with it; beside any other one they wait."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from maypole.services.cli.broker_gone import broker_gone
from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.running import until_stopped
from maypole.settings import Settings, read_settings

HERE = "127.0.0.1:1000"


def beside(home: Path, kafka: str | None = HERE) -> Settings:
    """Settings as a command finds them beside this broker."""
    name(home, kafka)
    return read_settings({"MAYPOLE_HOME": str(home)}, home)


def name(home: Path, kafka: str | None) -> None:
    (home / "endpoints.json").write_text(json.dumps({"kafka": kafka}))


async def turns(count: int = 50) -> None:
    """Whatever can go on without time passing has gone on."""
    for _ in range(count):
        await asyncio.to_thread(lambda: None)


async def test_one_that_has_ended_is_told_with_what_is_there_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = beside(tmp_path)
    (tmp_path / "endpoints.json").unlink()
    with pytest.raises(Problem, match=rf"started beside, {re.escape(HERE)}, found none in") as gone:
        await broker_gone(settings, in_memory=True)
    assert gone.value.code is ExitCode.UNREACHABLE and "maypole dev" in (gone.value.hint or "")
    assert f"Kafka at {HERE} was in memory" in capsys.readouterr().err
    name(tmp_path, "127.0.0.1:2000")
    with pytest.raises(Problem, match=r"found another one at 127\.0\.0\.1:2000 in") as replaced:
        await broker_gone(settings, in_memory=True)
    assert replaced.value.hint == "the same command again"


@pytest.mark.parametrize("why", ["its data outlives it", "somebody named it", "it is there", "the file cannot be read"])
async def test_any_other_one_is_waited_for(tmp_path: Path, why: str) -> None:
    settings = beside(tmp_path)
    if why == "somebody named it":
        settings = settings.at(HERE, "--kafka")
    if why != "it is there":
        name(tmp_path, "127.0.0.1:2000" if why != "the file cannot be read" else "?")
    waiting = asyncio.create_task(broker_gone(settings, in_memory=why != "its data outlives it", look_seconds=0))
    await turns()
    assert not waiting.done()
    waiting.cancel()


async def test_whoever_runs_until_stopped_hears_of_it(tmp_path: Path) -> None:
    settings = beside(tmp_path)
    name(tmp_path, None)
    agents = asyncio.create_task(asyncio.Event().wait())
    with pytest.raises(Problem, match="found none in"):
        await until_stopped(asyncio.Event(), agents, gone=broker_gone(settings, in_memory=True))  # type: ignore[arg-type]
    assert not agents.done(), "they are stopped in their own order"
    agents.cancel()
