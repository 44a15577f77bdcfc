"""`endpoints.json` in the home folder: where the services of `maypole dev` are, for every command run beside it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from maypole.services.cli.problems import ExitCode, Problem
from maypole.settings import ENDPOINTS_FILE

_CONNECT_SECONDS: Final = 0.5


def require_unused(home: Path) -> None:
    """Raises `Problem` when other services run here. What a dead process left behind is removed, with a word about it."""
    path = home / ENDPOINTS_FILE
    found = _read(path)
    if found is None:
        return
    pids = [pid for pid in found.get("pids", {}).values() if isinstance(pid, int)]
    kafka = str(found.get("kafka"))
    if any(map(_alive, pids)) and _answers(kafka):
        raise Problem(
            f"services already run here: Kafka at {kafka}, process {', '.join(map(str, pids))} ({path})",
            ExitCode.FAILED,
            "publish to them (maypole publish ...), stop them, or choose another folder: maypole --home .other dev",
        )
    path.unlink(missing_ok=True)
    click.echo(f"removed {path}, left behind by process {', '.join(map(str, pids)) or 'unknown'}, which is gone", err=True)


@contextmanager
def written(home: Path, kafka: str) -> Iterator[Path]:
    """There while the body runs. Written in one piece: a reader sees all of it or nothing."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / ENDPOINTS_FILE
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"kafka": kafka, "store": "sqlite", "pids": {"dev": os.getpid()}}, indent=2) + "\n")
    draft.replace(path)
    try:
        yield path
    finally:
        found = _read(path)
        # Somebody may have replaced it; theirs stays.
        if found is not None and found.get("kafka") == kafka:
            path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _answers(address: str) -> bool:
    """A process id may have gone to somebody else; then nobody listens where Kafka was."""
    host, _, port = address.split(",")[0].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), _CONNECT_SECONDS):
            return True
    except (OSError, ValueError):
        return False
