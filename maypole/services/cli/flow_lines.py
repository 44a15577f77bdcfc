"""A flow in plain lines on standard error, as its records are read: for logs, pipes and terminals that take no more than text."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import click

from maypole.services.cli.flow_picture import After, FlowPicture, Row, Status, Turn

_MOMENT_SECONDS: Final = 1.0
"""A step's record and its events come from different topics, in any order; whoever watches is not kept waiting for longer."""
_ENDS: Final = {Status.DONE: "ok    ", Status.FAILED: "FAILED", Status.FENCED: "fenced"}
_TURNS: Final = {Turn.UNDONE: "undone", Turn.STUCK: "STUCK ", Turn.DECIDED: "decided"}


@dataclass(frozen=True, slots=True)
class _Line:
    key: tuple[str, object]
    text: str
    seconds: float = math.inf
    """Since the flow started; what has no time of its own comes last."""
    told: bool = True
    """Whether nothing that belongs to it is still to come."""


class Lines:
    """One line when a step has come to its end, and one for what becomes of it when the flow does not go on as it began.

    They come in the order of the journal. One whose step emitted events waits a moment for them, so that it can tell of
    them, and what comes after it waits behind it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._held: dict[tuple[str, object], tuple[_Line, float]] = {}
        """With since when, in the order in which they are written."""
        self._written: set[tuple[str, object]] = set()

    def show(self, picture: FlowPicture, *, last: bool = False) -> bool:
        now = self._clock()
        for found in sorted(_lines(picture.rows()), key=lambda found: found.seconds):
            if found.key not in self._written:
                _, since = self._held.get(found.key, (found, now))
                self._held[found.key] = found, since
        for key, (held, since) in [*self._held.items()]:
            if not (last or held.told or now - since >= _MOMENT_SECONDS):
                return True
            del self._held[key]
            self._written.add(key)
            click.echo(held.text, err=True)
        return False


def _lines(rows: Sequence[Row]) -> Iterator[_Line]:
    for row in rows:
        if row.status in _ENDS:
            yield _Line((row.key, row.status), line(row), _at(row.seconds), row.told)
        if row.after is not None and row.after.turn in _TURNS:
            yield _Line((row.key, row.after.turn), line_after(row, row.after), _at(row.after.seconds))
        if row.absent:
            yield _Line((row.agent, "absent"), f"silent    {row.agent:<10} {row.absent}, and owes an answer to {row.trigger}")


def _at(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def line(row: Row) -> str:
    what = row.trigger if row.status is Status.FENCED else f"{row.trigger} -> {', '.join(row.emitted) or 'nothing'}"
    said = "will not run" if row.status is Status.FENCED else row.error or row.facts
    return f"{_ENDS[row.status]} {row.seconds or 0:7.3f} s  {row.agent:<10} {what}  {said}".rstrip()


def line_after(row: Row, after: After) -> str:
    at = " " * 9 if after.seconds is None else f"{after.seconds:7.3f} s"
    return f"{_TURNS[after.turn]:<6} {at}  {row.agent:<10} {row.trigger}  {after.text}".rstrip()
