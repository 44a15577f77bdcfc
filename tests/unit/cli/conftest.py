from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from maypole.services.cli import main


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


Maypole = Callable[..., Ran]


@pytest.fixture
def maypole(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Maypole]:
    """The command line in an empty folder, without a broker and without anybody's settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("MAYPOLE_KAFKA", "MAYPOLE_HOME", "MAYPOLE_DEBUG", "SCHEMA_REGISTRY_URL"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    # What the command line says of settings is said to agents in this process through the environment.
    environment = dict(os.environ)
    yield run
    os.environ.clear()
    os.environ.update(environment)
    root.handlers[:] = handlers
    root.setLevel(level)
