"""The programs that build or run the services: Java of some version, Maven, Go. Long work says that it goes on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from deploy.local.faults import LocalFault, NotHere

_NEWS_SECONDS = 15


def say(text: str) -> None:
    """Progress goes to standard error, at once."""
    print(text, file=sys.stderr, flush=True)


def find_java(least: int, whose: str) -> str:
    """The first Java of at least this version: JAVA_HOME, PATH, then where systems keep them."""
    found = []
    for candidate in _java_candidates():
        version = _java_version(candidate)
        if version >= least:
            return str(candidate)
        found.append(f"{candidate} is {version}")
    raise NotHere(
        f"{whose}: expected Java {least} or later, found {'; '.join(found) or 'none'}: install one "
        f"(on Debian: apt-get install default-jre-headless), or name it by JAVA_HOME"
    )


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


def _java_candidates() -> Iterator[Path]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield Path(home) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path:
        yield Path(on_path)
    for folder in (Path("/usr/lib/jvm"), Path("/opt/java"), Path("/Library/Java/JavaVirtualMachines")):
        yield from sorted(folder.glob("*/bin/java"))
        yield from sorted(folder.glob("*/Contents/Home/bin/java"))


def _java_version(java: Path) -> int:
    """The feature version (17, 21); 0 for what does not answer like a Java."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    return int(match[1]) if match else 0
