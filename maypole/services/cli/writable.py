"""Whether a folder can be written, or made: found out by writing, because permissions do not tell the superuser about all that refuses."""

from __future__ import annotations

import tempfile
from pathlib import Path

from maypole.services.cli.problems import ExitCode, Problem


def write_refused(folder: Path) -> str | None:
    """Why not, in words. Asked of the nearest folder that exists; nothing is left behind."""
    there = next((each for each in (folder, *folder.absolute().parents) if each.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        return f"{there} cannot be written: {error.strerror}"


def require_writable(folder: Path) -> None:
    """Raises `Problem`."""
    refused = write_refused(folder)
    if refused is not None:
        message = f"expected a folder for local state that can be written, found {refused}"
        raise Problem(message, ExitCode.FAILED, "maypole --home DIR, or MAYPOLE_HOME=DIR")
