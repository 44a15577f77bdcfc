"""Drawing a flow on standard error while it happens: a table that fills in on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import click

from maypole.services.cli.flow_picture import FlowPicture, Row, Status

if TYPE_CHECKING:
    from rich.console import RenderableType

_MARKS: Final = {Status.AHEAD: ("·", "dim"), Status.DONE: ("✓", "green"), Status.FAILED: ("✗", "red")}


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
    """One line when a step has come to its end. A line waits for the events that its step emitted, so that it can tell of them."""

    def __init__(self) -> None:
        self._written: set[int] = set()
        self._absent: set[str] = set()

    def show(self, picture: FlowPicture) -> None:
        for index, row in enumerate(picture.rows()):
            told = row.status is Status.FAILED or (row.status is Status.DONE and (row.facts or not row.emitted or picture.complete))
            if told and index not in self._written:
                self._written.add(index)
                click.echo(line(row), err=True)
            if row.absent and row.agent not in self._absent:
                self._absent.add(row.agent)
                click.echo(f"silent    {row.agent:<10} {row.absent}, and owes an answer to {row.trigger}", err=True)


def line(row: Row) -> str:
    mark = "ok    " if row.status is Status.DONE else "FAILED"
    what = f"{row.trigger} -> {', '.join(row.emitted) or 'nothing'}"
    return f"{mark} {row.seconds or 0:7.3f} s  {row.agent:<10} {what}  {row.error or row.facts}".rstrip()


class _Live:
    def __init__(self, update: _Update) -> None:
        self._update = update
        self._spinners: dict[int, RenderableType] = {}

    def show(self, picture: FlowPicture) -> None:
        from rich.table import Table
        from rich.text import Text

        rows = picture.rows()
        grid = Table.grid(padding=(0, 2))
        for width in (1, None, None, None):
            grid.add_column(no_wrap=True, width=width)
        grid.add_column(overflow="fold", ratio=1)
        for index, row in enumerate(rows):
            emitted = Text(", ".join(row.emitted) or _saying(row), style="bold" if row.emitted else "dim")
            seconds = Text("" if row.seconds is None else f"{row.seconds:.2f} s", style="dim")
            detail = Text(row.error or row.absent or row.facts, style="red" if row.error else "yellow" if row.absent else "cyan")
            grid.add_row(
                self._mark(index, row), Text(row.agent, style="dim" if row.status is Status.AHEAD else ""), emitted, seconds, detail
            )
        self._update(grid)

    def _mark(self, index: int, row: Row) -> RenderableType:
        from rich.spinner import Spinner
        from rich.text import Text

        if row.status is Status.WORKING:
            # One spinner for the whole life of a row, or it would begin anew with every record.
            return self._spinners.setdefault(index, Spinner("dots", style="yellow"))
        mark, style = _MARKS[row.status]
        return Text(mark, style=style)


class _Update(Protocol):
    def __call__(self, renderable: RenderableType, *, refresh: bool = False) -> None: ...


def _saying(row: Row) -> str:
    return {
        Status.AHEAD: f"waits for {row.trigger}",
        Status.WORKING: f"works on {row.trigger}",
        Status.FAILED: f"failed on {row.trigger}",
    }.get(row.status, "emitted nothing")
