"""`make up` and `make down`: docker compose, and the endpoints that commands typed here use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import httpx

from deploy.local.faults import LocalFault, NotHere
from deploy.local.process import wait_until
from deploy.local.stack import ENDPOINTS, Endpoints, require_unclaimed
from deploy.local.tools import say
from maypole.settings import WrongSetting, read_home

PUBLISHED: Final = Endpoints(
    kafka="localhost:9092",
    registry="http://localhost:8081",
    otlp="http://localhost:4318",
    jaeger="http://localhost:16686",
)
"""The ports that docker-compose.yml opens on loopback."""

_UP: Final = ("up", "--build", "--detach", "--wait", "--wait-timeout", "300")


def main(arguments: Sequence[str]) -> int:
    """`up` or `down`. Exit codes as the command line's: 0 done, 1 failed, 2 usage."""
    if list(arguments) not in (["up"], ["down"]):
        say(f"expected `up` or `down`, found {' '.join(arguments) or 'nothing'}")
        return 2
    try:
        path = read_home(os.environ, Path.cwd()) / ENDPOINTS
    except WrongSetting as error:
        say(f"error: {error}")
        return 2
    try:
        _require_docker()
        if arguments[0] == "up":
            if not _is_ours(path):
                require_unclaimed(path)
            _compose(*_UP)
            wait_until(_jaeger_answers, 60, f"Jaeger to answer at {PUBLISHED.jaeger}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(PUBLISHED), indent=2) + "\n")
            print(f"Kafka {PUBLISHED.kafka}, registry {PUBLISHED.registry}, Jaeger {PUBLISHED.jaeger}. Next:")
            print('  .venv/bin/maypole publish research.requested --data \'{"question": "How do generators work?"}\' --follow')
        else:
            _compose("down")
            if _is_ours(path):
                path.unlink()
    except LocalFault as fault:
        say(f"error: {fault}")
        return 1
    return 0


def _is_ours(endpoints: Path) -> bool:
    try:
        return bool(json.loads(endpoints.read_text()) == asdict(PUBLISHED))
    except (FileNotFoundError, ValueError):
        return False


def _require_docker() -> None:
    without = "`make local` starts the same services without Docker"
    if shutil.which("docker") is None:
        raise NotHere(f"expected the program docker, found none on PATH; {without}")
    for command, what in (
        (["docker", "compose", "version"], "docker's compose plugin"),
        (["docker", "info"], "a Docker daemon that answers"),
    ):
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            reason = answer.stderr.strip().splitlines()
            raise NotHere(f"expected {what}, found: {reason[0] if reason else answer.returncode}; {without}")


def _compose(*arguments: str) -> None:
    code = subprocess.run(["docker", "compose", *arguments], check=False).returncode
    if code != 0:
        raise LocalFault(f"`docker compose {' '.join(arguments)}` failed with {code}; `docker compose logs` says more")


def _jaeger_answers() -> bool:
    try:
        return httpx.get(f"{PUBLISHED.jaeger}/api/v3/services", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
