"""What happened in a run: a digest of everything, by which two runs are compared, and the little that a person wants to read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable


class Story:
    """`elapsed` gives virtual seconds since the beginning."""

    def __init__(self, elapsed: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._state = hashlib.blake2b(digest_size=16)
        self.lines: list[str] = []

    def mark(self, what: str) -> None:
        """Counts for the digest only."""
        self._state.update(f"{self._elapsed():.9f} {what}\n".encode())

    def tell(self, what: str) -> None:
        self.mark(what)
        self.lines.append(f"{self._elapsed():10.3f}  {what}")

    @property
    def digest(self) -> str:
        return self._state.hexdigest()
