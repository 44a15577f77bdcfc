"""Commands as the user has to type them here: `maypole ...`, or `.venv/bin/maypole ...` when that is how it was called."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from maypole.services.cli.commands import COMMANDS

_COMMAND: Final = re.compile(rf"(?<![\w./-])maypole (?=(?:{'|'.join(COMMANDS)})\b)")


def command(*words: str) -> str:
    """A command of ours that works as typed in this terminal. Words with blanks are quoted."""
    return " ".join((program(), *map(shlex.quote, words)))


def in_text(text: str) -> str:
    """Text that speaks of `maypole dev` and the like, with the name that works here."""
    name = program()
    return text if name == "maypole" else _COMMAND.sub(f"{name} ".replace("\\", r"\\"), text)


def program(called_as: str | None = None) -> str:
    path = Path(called_as or sys.argv[0])
    if path.parts[-2:] == ("cli", "__main__.py"):
        return f"{_typed(Path(sys.executable))} -m maypole.services.cli"
    # Called from a program or a test, the name is the best we know.
    return _typed(path) if path.name == "maypole" else "maypole"


def _typed(path: Path) -> str:
    """The shortest that means this file here: its name, its path from this folder, its whole path."""
    found = shutil.which(path.name)
    if found is not None and Path(found).absolute() == path.absolute():
        return path.name
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return os.fspath(path.absolute())
