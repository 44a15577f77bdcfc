"""The programs that build the services: Maven, Go. Long work says that it goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.local.faults import LocalFault, NotHere

_NEWS_SECONDS = 15


def say(text: str) -> None:
    """Progress goes to standard error, at once."""
    print(text, file=sys.stderr, flush=True)


def copy_from_maven(pom: Path, goal: str, *options: str) -> None:
    """Run one goal of Maven's dependency plugin on a POM of ours."""
    if shutil.which("mvn") is None:
        raise NotHere("Maven: expected the program mvn, found none on PATH: install it (on Debian: apt-get install maven)")
    plugin = f"org.apache.maven.plugins:maven-dependency-plugin:3.8.1:{goal}"
    run_patiently(["mvn", "--batch-mode", "--quiet", "--no-transfer-progress", "--file", str(pom), plugin, *options], pom.parent, 600)


def run_patiently(command: Sequence[str], folder: Path, seconds: float, environment: Mapping[str, str] | None = None) -> None:
    """Run a build step, with a line every quarter of a minute; its output is shown only when it fails."""
    began = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        while True:
            try:
                output, _ = process.communicate(timeout=_NEWS_SECONDS)
                break
            except subprocess.TimeoutExpired:
                passed = time.monotonic() - began
                if passed > seconds:
                    process.kill()
                    raise LocalFault(f"`{' '.join(command)}` took longer than {seconds:.0f} s") from None
                say(f"  … {command[0]}, {passed:.0f} s so far")
            except BaseException:
                process.kill()
                raise
    if process.returncode != 0:
        raise LocalFault(f"`{' '.join(command)}` failed with {process.returncode}:\n{output[-4000:].strip()}")
