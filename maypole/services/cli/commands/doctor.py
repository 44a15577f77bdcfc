"""`maypole doctor`: what is reachable, what is not, and what to do."""

from __future__ import annotations

from typing import Final

import click

from maypole.services.cli.output import Form, output_option, print_rows
from maypole.services.cli.problems import ExitCode
from maypole.services.cli.program import in_text
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Command, examples

_MARKS: Final = {"ok": ("ok    ", "green"), "warning": ("look  ", "yellow"), "failed": ("NOT OK", "red")}


@click.command(cls=Command, epilog=examples("maypole doctor", "maypole doctor -o json", "maypole --kafka broker:9092 doctor"))
@output_option
@asynchronous
async def command(session: Session, form: Form) -> int:
    """Look at everything that Maypole needs or uses here.

    Exit code 0: usable; 5: no broker can be reached; 1: something else is in the way.
    """
    from maypole.services.cli.health import examine

    checks = await examine(session.settings)
    if form != "table":
        print_rows([check.row() for check in checks], form, {})
    else:
        for check in checks:
            mark, colour = _MARKS[check.status]
            click.echo(f"{click.style(mark, fg=colour)}  {check.check:<11} {check.found}")
            if check.do:
                click.echo(f"{'':20}{click.style('try:', fg='cyan')} {in_text(check.do)}")
    failed = {check.check for check in checks if check.status == "failed"}
    if "broker" in failed:
        return ExitCode.UNREACHABLE
    return ExitCode.FAILED if failed else ExitCode.DONE
