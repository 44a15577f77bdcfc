"""From a run that fails to the few accidents that it takes.

Source: A. Zeller, R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002): delta debugging.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrunk(items: Sequence[T], fails: Callable[[Sequence[T]], bool], tries_max: int) -> Sequence[T]:
    """A part of `items`, in their order, that still fails, and does not without any of its own as far as `tries_max` reached."""
    tries = 0

    def still_fails(part: Sequence[T]) -> bool:
        nonlocal tries
        tries += 1
        return tries <= tries_max and fails(part)

    if still_fails(()):
        return ()
    pieces = 2
    while len(items) > 1 and tries < tries_max:
        size = -(-len(items) // pieces)
        for start in range(0, len(items), size):
            rest = [*items[:start], *items[start + size :]]
            if still_fails(rest):
                items, pieces = rest, max(pieces - 1, 2)
                break
        else:
            if size == 1:
                return items
            pieces = min(len(items), pieces * 2)
    return items
