"""What a connection writes to is still what lies at its path: the system lets a process write on into a file that was removed.

A row in such a file is gone with the process, while what it answers for has left.
"""

from __future__ import annotations

from pathlib import Path

from maypole.bus.ledger.port import LedgerCorrupt


class Files:
    """The database and its write-ahead log, as they were when they were first looked at."""

    def __init__(self, path: Path, name: str, changed: str) -> None:
        """`changed` is what to do when it is another file."""
        self._name = name
        self._advice = changed
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._seen: dict[Path, tuple[int, int]] = {}
        self._size = 0

    def check(self) -> None:
        """Two questions to the system, after each commit. Raises `LedgerCorrupt`."""
        size = self._same(self._path)
        self._same(self._log)
        if size < self._size:
            raise self._changed(self._path, f"{size} bytes of {self._size}")
        self._size = size

    def _same(self, path: Path) -> int:
        try:
            found = path.stat()
        except FileNotFoundError:
            raise self._changed(path, "no file") from None
        identity = found.st_dev, found.st_ino
        if self._seen.setdefault(path, identity) != identity:
            raise self._changed(path, "another one")
        return found.st_size

    def _changed(self, path: Path, found: str) -> LedgerCorrupt:
        return LedgerCorrupt(
            f"{path}: expected the file of the {self._name} that was opened, found {found}: it was removed or replaced while its process "
            f"ran, which stops before anything leaves that would not be remembered; {self._advice}"
        )
