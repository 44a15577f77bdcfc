"""PostgreSQL from Debian's package or any other installation: private data folder, Unix socket, no port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.local.faults import LocalFault, NotHere
from deploy.local.process import Process, start, wait_ready

_USER: Final = "postgres"
"""The server refuses to run as root; its package brings this user."""
_DATABASE: Final = "postgres"
_READY_SECONDS: Final = 120
"""After a kill it writes every file of its folder to the disk before it answers, which takes long where others write, too."""


class Postgres:
    """One server. Its folder lies in the system's folder for temporary files, where its own user can reach it."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._folder: Path | None = None
        self._process: Process | None = None

    @property
    def address(self) -> str:
        """What `MAYPOLE_STORE` is set to."""
        return f"postgresql://{_USER}@/{_DATABASE}?host={self._folder}"

    def start(self) -> None:
        """Make the data folder on first use, and wait until the server answers. Raises `NotHere` where it is not installed."""
        initdb, server = _program("initdb"), _program("postgres")
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="maypole-postgres-"))
            if os.geteuid() == 0:
                owner = pwd.getpwnam(_USER)
                os.chown(self._folder, owner.pw_uid, owner.pw_gid)
            made = subprocess.run(
                [*_as_user(), initdb, "--pgdata", str(self._data), "--username", _USER, "--auth", "trust", "--no-sync"],
                cwd=self._folder, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if made.returncode != 0:
                raise LocalFault(f"initdb failed with {made.returncode}:\n{made.stderr.strip()}")
        options = {"listen_addresses": "", "unix_socket_directories": str(self._folder)}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._process = start("PostgreSQL", [*_as_user(), server, "-D", str(self._data), *settings], self._logs / "postgres.log")
        try:
            wait_ready(self._answers, [self._process], _READY_SECONDS, "PostgreSQL to answer")
        except BaseException:
            self.kill()
            raise

    def restart(self) -> None:
        """As an administrator who cannot wait does it: every session ends in the middle of what it does."""
        self.kill()
        self.start()

    def kill(self) -> None:
        if self._process is not None and self._process.alive:
            # SIGQUIT ends the server's children too, and at once; it recovers from its log when it starts again.
            subprocess.run([*_as_user(), _program("pg_ctl"), "stop", "-m", "immediate", "-D", str(self._data)], cwd="/", check=False,
                           capture_output=True)  # fmt: skip
            self._process.kill()

    def stop(self) -> None:
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    @property
    def _data(self) -> Path:
        assert self._folder is not None, "start it first"
        return self._folder / "data"

    def _answers(self) -> bool:
        asked = subprocess.run([_program("pg_isready"), "--quiet", "--host", str(self._folder)], check=False)
        return asked.returncode == 0


def _program(name: str) -> str:
    """From PATH, else from where Debian keeps the server's programs, the highest version first."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    found = shutil.which(name) or next((str(place / name) for place in places if (place / name).exists()), None)
    if found is None:
        raise NotHere(f"PostgreSQL: expected the program {name}, found none: install it (on Debian: apt-get install postgresql)")
    return found


def _as_user() -> Sequence[str]:
    if os.geteuid() != 0:
        return []
    # It becomes the program, so that its pid is the server's.
    return ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"]
