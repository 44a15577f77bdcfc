"""Drawing a flow on standard error while it happens: a table that fills in on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import click

from maypole.services.cli.flow_picture import After, FlowPicture, Row, Status, Turn

if TYPE_CHECKING:
    from rich.console import RenderableType

_MARKS: Final = {
    Status.AHEAD: ("·", "dim"), Status.WORKING: ("·", "dim"), Status.DONE: ("✓", "green"), Status.FAILED: ("✗", "red"),
    Status.FENCED: ("⊘", "dim"),
}  # fmt: skip
_AFTER_MARKS: Final = {Turn.UNDONE: ("↶", "magenta"), Turn.STUCK: ("!", "red"), Turn.DECIDED: ("✎", "magenta")}


class View(Protocol):
    """Shows the picture as it is now. Never waits."""

    def show(self, picture: FlowPicture) -> None: ...


@contextmanager
def open_view() -> Iterator[View]:
    """The live one on a terminal that takes more than text. Leaving it leaves the last picture standing."""
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        yield Lines()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    with Live(console=console, refresh_per_second=12, transient=False) as live:
        yield _Live(live.update)


class Lines:
    """One line when a step has come to its end, and one for what becomes of it when the flow does not go on as it began.

    A line waits for the events that its step emitted, so that it can tell of them.
    """

    def __init__(self) -> None:
        self._written: set[tuple[str, object]] = set()

    def show(self, picture: FlowPicture) -> None:
        rows = picture.rows()
        # What is told of a step comes after what led to it.
        urgent = max(
            (at for at, row in enumerate(rows) if row.status in (Status.FAILED, Status.FENCED) or row.after is not None), default=-1
        )
        for at, row in enumerate(rows):
            after = row.after if row.after is not None and row.after.turn in _TURNS else None
            if row.status in _ENDS and (row.facts or not row.emitted or picture.complete or at <= urgent):
                self._write(row, row.status, line(row))
            if after is not None:
                self._write(row, after.turn, line_after(row, after))
            if row.absent:
                self._write(row, "absent", f"silent    {row.agent:<10} {row.absent}, and owes an answer to {row.trigger}")

    def _write(self, row: Row, what: object, text: str) -> None:
        key = (row.agent if what == "absent" else row.key, what)
        if key not in self._written:
            self._written.add(key)
            click.echo(text, err=True)


_ENDS: Final = {Status.DONE: "ok    ", Status.FAILED: "FAILED", Status.FENCED: "fenced"}
_TURNS: Final = {Turn.UNDONE: "undone", Turn.STUCK: "STUCK ", Turn.DECIDED: "decided"}


def line(row: Row) -> str:
    what = row.trigger if row.status is Status.FENCED else f"{row.trigger} -> {', '.join(row.emitted) or 'nothing'}"
    said = "will not run" if row.status is Status.FENCED else row.error or row.facts
    return f"{_ENDS[row.status]} {row.seconds or 0:7.3f} s  {row.agent:<10} {what}  {said}".rstrip()


def line_after(row: Row, after: After) -> str:
    at = " " * 9 if after.seconds is None else f"{after.seconds:7.3f} s"
    return f"{_TURNS[after.turn]:<6} {at}  {row.agent:<10} {row.trigger}  {after.text}".rstrip()


class _Live:
    def __init__(self, update: _Update) -> None:
        self._update = update
        self._spinners: dict[str, RenderableType] = {}

    def show(self, picture: FlowPicture) -> None:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for width in (1, None, None, None):
            grid.add_column(no_wrap=True, width=width)
        grid.add_column(overflow="fold", ratio=1)
        for row in picture.rows():
            after, dim = row.after, row.status in (Status.AHEAD, Status.FENCED) or (row.after is not None and row.after.turn is Turn.UNDONE)
            emitted = Text(", ".join(row.emitted) or _saying(row), style="dim" if dim or not row.emitted else "bold")
            at = row.seconds if after is None or after.seconds is None else after.seconds
            detail, style = _detail(row)
            seconds = Text("" if at is None else f"{at:.2f} s", style="dim")
            grid.add_row(self._mark(row), Text(row.agent, style="dim" if dim else ""), emitted, seconds, Text(detail, style=style))
        self._update(grid)

    def _mark(self, row: Row) -> RenderableType:
        from rich.spinner import Spinner
        from rich.text import Text

        turning = row.after is not None and row.after.turn in (Turn.FENCING, Turn.UNDOING)
        if turning or (row.status is Status.WORKING and row.after is None):
            # One spinner for the whole life of a row, or it would begin anew with every record.
            return self._spinners.setdefault(row.key, Spinner("dots", style="yellow"))
        mark, style = _AFTER_MARKS[row.after.turn] if row.after is not None else _MARKS[row.status]
        return Text(mark, style=style)


def _detail(row: Row) -> tuple[str, str]:
    match row.after:
        case After(Turn.FENCING | Turn.UNDOING as turn):
            return turn.value, "yellow"
        case After(Turn.UNDONE, _, text):
            return f"undone ({text})", "magenta"
        case After(Turn.STUCK, _, text):
            return f"stuck: {text}", "red"
        case After(Turn.DECIDED, _, text):
            return text, "magenta"
    if row.error:
        return row.error, "red"
    return (row.absent, "yellow") if row.absent else (row.facts, "cyan")


class _Update(Protocol):
    def __call__(self, renderable: RenderableType, *, refresh: bool = False) -> None: ...


def _saying(row: Row) -> str:
    return {
        Status.AHEAD: f"waits for {row.trigger}",
        Status.WORKING: f"works on {row.trigger}",
        Status.FAILED: f"failed on {row.trigger}",
        Status.FENCED: f"will not run on {row.trigger}",
    }.get(row.status, "emitted nothing")
