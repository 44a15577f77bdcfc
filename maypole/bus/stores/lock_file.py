"""An exclusive lock on a file beside a store: one process works on it, and whoever gets the lock knows that the last one is dead.

The system lets go of the lock when the process ends, however it ends. Stopped (SIGSTOP) is not ended.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from maypole.bus.ledger.port import LedgerInUse, LedgerUnavailable


class LockFile:
    def __init__(self, path: Path) -> None:
        """Take the lock. Raises `LedgerInUse` naming the process that has it, `LedgerUnavailable` where no file can be made."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LedgerUnavailable(
                f"{path}: expected a folder that can be written, found: {error.strerror}; give this user the right to, "
                "or set MAYPOLE_HOME to a folder of its own"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 256).decode(errors="replace").partition("\n")[0] or "unknown"
            os.close(self._file)
            raise LedgerInUse(
                f"{path} is held by process {holder}: one process at a time works on a SQLite ledger; end that one, "
                "or set MAYPOLE_STORE to a postgresql:// address, which several instances of an agent can share"
            ) from None
        _, _, self.note = os.read(self._file, 256).decode(errors="replace").partition("\n")
        """What an earlier owner has left here for the next one; empty: nothing."""
        self._write()

    def leave(self, note: str) -> None:
        """For every later owner."""
        self.note = note
        self._write()

    def release(self) -> None:
        """The file stays: to remove it would let a third process lock another file of the same name."""
        os.close(self._file)

    def _write(self) -> None:
        text = f"{os.getpid()}\n{self.note}".encode()
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))
