"""One server process: started apart from our terminal, known by its pid *and* start time, ended by us alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local.faults import LocalFault, NotHere

_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """`started` is the system's own start time of the pid: a pid that was given to another program is not ours."""

    name: str
    pid: int
    started: str
    log: Path

    @property
    def alive(self) -> bool:
        _reap(self.pid)
        return start_time(self.pid) == self.started

    def kill(self) -> None:
        """End it as a power failure would, and wait until it is gone."""
        self._signal(signal.SIGKILL)
        wait_until(lambda: not self.alive, 10, f"{self.name} (pid {self.pid}) to be gone after SIGKILL")

    def ask_to_stop(self) -> None:
        self._signal(signal.SIGTERM)

    def stop(self, patience_seconds: float = 20) -> None:
        """Ask, wait, then kill. Does nothing when it has ended already."""
        self.ask_to_stop()
        deadline = time.monotonic() + patience_seconds
        while self.alive and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        self.kill()

    def tail(self, lines: int = 15) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _signal(self, number: int) -> None:
        if not self.alive:
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass  # it ended between the two lines


def start(name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Process:
    """Start a program in a session of its own (Ctrl-C in our terminal is not meant for it), its output in `log`."""
    program = shutil.which(command[0])
    if program is None:
        raise NotHere(f"{name}: expected the program {command[0]}, found none on PATH")
    log.parent.mkdir(parents=True, exist_ok=True)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        program,
        list(command),
        {**os.environ, **(environment or {})},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return Process(name, pid, start_time(pid) or "ended", log)


def wait_ready(ready: Callable[[], bool], processes: Sequence[Process], seconds: float, what: str) -> None:
    """Wait until `ready`; a process that ends meanwhile fails at once, with the end of its log."""

    def check() -> bool:
        for process in processes:
            if not process.alive:
                raise LocalFault(f"{process.name} ended while it was starting; the end of {process.log}:\n{process.tail()}")
        return ready()

    logs = ", ".join(str(process.log) for process in processes)
    wait_until(check, seconds, f"{what} (logs: {logs})")


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """The one place that polls: other programs tell nobody when they are ready. Raises `LocalFault` when the time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LocalFault(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(_PAUSE_SECONDS)


def start_time(pid: int) -> str | None:
    """When the process with this pid started, in the system's own words; None when there is none, or only its remains."""
    if Path("/proc/self/stat").exists():
        try:
            # The second field, the program's name in brackets, may hold blanks and brackets itself.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else fields[19]
    answer = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    return started.strip() if state and not state.startswith("Z") else None


def _reap(pid: int) -> None:
    """A child that ended keeps its pid until its parent has asked; somebody else's process is none of our business."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
