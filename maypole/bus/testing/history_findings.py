"""What a checker of histories may find."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    LOST = "lost"
    """An input was taken and committed and nothing came of it; or what was acknowledged or promised is not on its topic."""
    DOUBLED = "doubled effect"
    """The witness saw two keys for one cause, or a call after the step was done, or after it was undone."""
    SKIPPED = "skipped"
    """An offset was passed that nobody ever took, or that was gone before anybody could, and nobody said so."""
    REORDERED = "reordered"
    """What one agent did for one flow first appears in another order than its inputs."""
    NO_EFFECT = "committed without effect"
    """A step says that it completed, and the witness never heard of it."""
    NO_INPUT = "output without input"
    """A record whose cause, or whose step, does not exist."""
    CONTRADICTED = "contradictory outcomes"
    """One step ended in two ways, or one id says two things."""
    MULTIPLIED = "multiplied"
    """Repeating a step made new ids instead of the same ones."""
    HALF_DONE = "half done"
    """A flow ended, and what its steps did to the outside is not what its end says; or it was undone in the wrong order."""
    EARLY = "tried early"
    """A handler was called again before the time that the step's retry record names."""


class Finding(NamedTuple):
    kind: Kind
    agent: str
    """Empty where it is nobody's in particular."""
    detail: str
