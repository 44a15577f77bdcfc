"""One `maypole dev` a home folder, and its `endpoints.json`: where its services are, for every command run beside it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TextIO

import click

from maypole.services.cli.problems import ExitCode, Problem
from maypole.settings import ENDPOINTS_FILE, Endpoints, Settings

LOCK_FILE: Final = "dev.pid"
_CONNECT_SECONDS: Final = 0.5
_PID_SECONDS: Final = 1.0


@contextmanager
def claimed(home: Path) -> Iterator[None]:
    """This process alone while the body runs. Raises `Problem` naming the process that was first, however close it was.

    The lock goes with its process, whatever ends it; the file stays, because removing it would make two locks of one.
    """
    path = home / LOCK_FILE
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(home, f"process {_owner(path)} ({path})") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _opened(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except OSError as error:
        found = f"{path.parent}: {error.strerror}"
        message = f"expected a folder for local state that can be written, found {found}"
        raise Problem(message, ExitCode.FAILED, "maypole --home DIR, or MAYPOLE_HOME=DIR") from error


def _owner(path: Path) -> str:
    """Whoever has just taken the lock has perhaps not said yet who it is."""
    until = time.monotonic() + _PID_SECONDS
    while time.monotonic() < until:
        found = path.read_text().strip()
        if found.isdigit() and _alive(int(found)):
            return found
        time.sleep(0.01)
    return "unknown"


def _taken(home: Path, what: str) -> Problem:
    hint = "publish to them (maypole publish ...), stop them, or choose another folder: maypole --home .other dev"
    return Problem(f"services already run in {home}: {what}", ExitCode.FAILED, hint)


def require_unused(home: Path) -> None:
    """Raises `Problem` when other services run here. What a dead process left behind is removed, with a word about it."""
    path = home / ENDPOINTS_FILE
    found = _read(path)
    if found is None:
        return
    pids = [pid for pid in found.get("pids", {}).values() if isinstance(pid, int)]
    kafka = str(found.get("kafka"))
    # What runs in containers has no process here; all that can be asked of it is whether it answers.
    if (not pids or any(map(_alive, pids))) and _answers(kafka):
        whose = f"process {', '.join(map(str, pids))}" if pids else "in containers (make down ends them)"
        raise _taken(home, f"Kafka at {kafka}, {whose} ({path})")
    path.unlink(missing_ok=True)
    whose = f"process {', '.join(map(str, pids))}, which is gone" if pids else f"services that are gone (Kafka at {kafka})"
    click.echo(f"removed {path}, left behind by {whose}", err=True)


@contextmanager
def written(settings: Settings) -> Iterator[Path]:
    """There while the body runs. Written in one piece: a reader sees all of it or nothing. What is not known is null."""
    home = settings.home
    home.mkdir(parents=True, exist_ok=True)
    path = home / ENDPOINTS_FILE
    draft = path.with_suffix(f".{os.getpid()}")
    endpoints = Endpoints(settings.kafka, settings.registry_url, settings.otlp_endpoint, settings.jaeger_url)
    draft.write_text(json.dumps({**asdict(endpoints), "pids": {"dev": os.getpid()}}, indent=2) + "\n")
    draft.replace(path)
    try:
        yield path
    finally:
        found = _read(path)
        # Somebody may have replaced it; theirs stays.
        if found is not None and found.get("kafka") == settings.kafka:
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
