"""Drawing a flow on standard error while it happens: a table that fills in on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from maypole.services.cli.flow_lines import Lines
from maypole.services.cli.flow_picture import After, FlowPicture, Row, Status, Turn

if TYPE_CHECKING:
    from rich.console import RenderableType

_MARKS: Final = {
    Status.AHEAD: ("·", "dim"), Status.WORKING: ("·", "dim"), Status.DONE: ("✓", "green"), Status.FAILED: ("✗", "red"),
    Status.FENCED: ("⊘", "dim"),
}  # fmt: skip
_AFTER_MARKS: Final = {Turn.UNDONE: ("↶", "magenta"), Turn.STUCK: ("!", "red"), Turn.DECIDED: ("✎", "magenta")}


class View(Protocol):
    """Shows the picture as it is now. Never waits.

    True: something of it is held back, and wants to be shown again soon. Nothing is of the `last` picture.
    """

    def show(self, picture: FlowPicture, *, last: bool = False) -> bool: ...


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


class _Live:
    def __init__(self, update: _Update) -> None:
        self._update = update
        self._spinners: dict[str, RenderableType] = {}

    def show(self, picture: FlowPicture, *, last: bool = False) -> bool:
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
        return False

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
