"""Who works here, in words by which others on this machine can tell for certain that it does not any more.

A session, a lease or a heartbeat that ends proves nothing: whoever stands still loses all of them and goes on some day. That a
process has ended is known to the kernel that ran it, so it can be proved on the same machine and nowhere else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_STATE, _STARTED = 0, 19
"""Fields of `/proc/<pid>/stat`, counted behind the name of the program (proc(5) counts them from 3)."""
_ENDED: Final = ("Z", "X", "x")


class Process(NamedTuple):
    """`kernel`: this start of a machine, and the namespaces in which number and time of start have a meaning."""

    kernel: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.kernel}/{self.pid}/{self.started}"


def this_process() -> Process | None:
    """None where the system does not tell: then nobody's end can be proved."""
    return process_with(os.getpid())


def process_with(pid: int) -> Process | None:
    kernel, stat = _kernel(), _stat(pid)
    return None if kernel is None or stat is None else Process(kernel, pid, int(stat[_STARTED]))


def process_of(text: str) -> Process | None:
    kernel, _, numbers = text.partition("/")
    pid, _, started = numbers.partition("/")
    return Process(kernel, int(pid), int(started)) if kernel and pid.isdecimal() and started.isdecimal() else None


def has_ended(process: Process) -> bool:
    """Whether it is certain. False: it lives, or lives where this cannot be told."""
    if process.kernel != _kernel():
        return False
    try:
        os.kill(process.pid, 0)  # asks, and sends nothing; what /proc shows depends on how it is mounted
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    stat = _stat(process.pid)
    if stat is None:
        return False
    if int(stat[_STARTED]) != process.started:
        return True  # the number was given to another one
    # Its first thread may have ended before the others.
    return stat[_STATE] in _ENDED and _threads(process.pid) <= 1


def _kernel() -> str | None:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        spaces = [(_PROC / "self/ns" / space).stat().st_ino for space in ("pid", "time")]
    except OSError:
        return None
    return ".".join([boot, *map(str, spaces)])


def _threads(pid: int) -> int:
    try:
        return len(list((_PROC / str(pid) / "task").iterdir()))
    except FileNotFoundError:
        return 0


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 1 :].split()
