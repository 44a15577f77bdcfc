"""`make up` and `make local`, as far as they decide by themselves: with a `docker` that only says what it was asked."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from deploy import compose
from deploy.local.faults import LocalFault
from deploy.local.stack import Endpoints, LocalStack
from maypole.settings import read_home


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with what `docker` was asked, a line a call; Jaeger answers."""
    folder, said = tmp_path / "bin", tmp_path / "asked"
    folder.mkdir()
    docker = folder / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {said}\ncase "$*" in "$REFUSED") echo "no daemon" >&2; exit 1;; esac\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("REFUSED", "nothing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compose, "_jaeger_answers", lambda: True)
    return said


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_up_starts_everything_then_says_where_it_is_and_down_takes_both_back(asked: Path, tmp_path: Path) -> None:
    path = tmp_path / ".maypole" / "endpoints.json"
    assert compose.main(["up"]) == 0
    assert asked.read_text().splitlines()[-1] == "compose up --build --detach --wait --wait-timeout 300"
    assert json.loads(path.read_text()) == asdict(compose.PUBLISHED)
    assert compose.main(["down"]) == 0
    assert asked.read_text().splitlines()[-1] == "compose down"
    assert not path.exists()


def test_up_and_down_go_by_the_home_that_maypole_toml_names(asked: Path, tmp_path: Path) -> None:
    (tmp_path / "maypole.toml").write_text('[maypole]\nhome = "elsewhere"\n')
    assert compose.main(["up"]) == 0
    assert (tmp_path / "elsewhere" / "endpoints.json").exists()
    assert not (tmp_path / ".maypole").exists()


def test_a_home_that_cannot_be_used_is_told_before_docker_is_asked(asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "maypole.toml").write_text('[maypole]\nhome = "asked"\n')
    asked.write_text("")
    assert compose.main(["up"]) == 2
    assert "MAYPOLE_HOME: expected a folder, found a file" in capsys.readouterr().err
    assert asked.read_text() == ""


def test_a_docker_that_does_not_answer_is_told_with_what_does_without(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REFUSED", "info")
    assert compose.main(["up"]) == 1
    assert "expected a Docker daemon that answers, found: no daemon; `make local`" in capsys.readouterr().err


def test_a_compose_that_fails_leaves_no_endpoints(asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSED", "compose up --build --detach --wait --wait-timeout 300")
    assert compose.main(["up"]) == 1
    assert not (tmp_path / ".maypole" / "endpoints.json").exists()


def test_up_leaves_the_endpoints_of_services_that_run_alone(asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ".maypole" / "endpoints.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"kafka": "127.0.0.1:1", "pids": {"dev": os.getpid()}}))
    assert compose.main(["up"]) == 1
    assert f"belongs to process {os.getpid()}, which runs" in capsys.readouterr().err
    assert compose.main(["down"]) == 0
    assert path.exists()


def test_local_services_do_not_replace_those_in_containers_that_answer(tmp_path: Path, listening: str) -> None:
    (tmp_path / "endpoints.json").write_text(json.dumps(asdict(replace(compose.PUBLISHED, kafka=listening))))
    with pytest.raises(LocalFault, match=f"belongs to the services with Kafka at {listening}, which answers"):
        LocalStack(tmp_path)._require_unused()
    (tmp_path / "endpoints.json").write_text(json.dumps(asdict(Endpoints("127.0.0.1:1"))))
    LocalStack(tmp_path)._require_unused()


def test_the_home_of_local_services_is_the_one_of_every_command(tmp_path: Path) -> None:
    assert read_home({}, tmp_path) == tmp_path / ".maypole"
    (tmp_path / "maypole.toml").write_text('[maypole]\nhome = "elsewhere"\n')
    assert read_home({}, tmp_path) == tmp_path / "elsewhere"
    assert read_home({"MAYPOLE_HOME": "/own"}, tmp_path) == Path("/own")
