"""`maypole`: the options that stand before a command, the commands, and the one place where errors become words."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import click

from maypole.services.cli.commands import COMMANDS
from maypole.services.cli.problems import ExitCode, Problem, explained, leaf
from maypole.services.cli.program import program
from maypole.services.cli.session import Session
from maypole.services.cli.teaching import Group

EPILOG: Final = """\b
Begin with:
  maypole demo                        everything at once, in a few seconds
  maypole dev                         the same, staying up; then, in a second terminal:
  maypole publish research.requested --data '{"question": "..."}' --follow
  maypole new agent translate --on report.published --emits report.translated

\b
Exit codes: 0 done, 1 failed, 2 usage or settings, 3 not found, 4 the followed flow was undone,
5 broker unreachable, 6 the followed flow waits for a person, 124 timed out,
130 interrupted (Ctrl-C), 143 terminated (SIGTERM)."""


class LazyGroup(Group):
    """Knows every command by name and imports the one that is typed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        found = import_module(f"maypole.services.cli.commands.{module}").command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else f" Commands: {', '.join(COMMANDS)}."
            raise click.UsageError(f"there is no command {args[0]!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--kafka", metavar="HOST:PORT", help="The broker (MAYPOLE_KAFKA). Default: what `maypole dev` or `make local` started here.")
@click.option("--home", metavar="DIR", help="Folder of local state (MAYPOLE_HOME). Default: .maypole")
@click.option("-v", "--verbose", count=True, help="Log what happens; -vv logs everything.")
@click.option("--debug", is_flag=True, envvar="MAYPOLE_DEBUG", help="Show the traceback of an error.")
@click.version_option(package_name="maypole", message="maypole %(version)s")
@click.pass_context
def root(ctx: click.Context, kafka: str | None, home: str | None, verbose: int, debug: bool) -> None:
    """Agents that react to each other's events on Kafka: no conductor, one flow, one trace."""
    overrides = {name: value for name, value in (("MAYPOLE_KAFKA", kafka), ("MAYPOLE_HOME", home)) if value}
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    ctx.obj = Session(overrides, verbose)


def answer(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. A user's mistake is one message, never a traceback."""
    asked = list(arguments)
    debug = bool(os.environ.get("MAYPOLE_DEBUG")) or "--debug" in asked
    try:
        with root.make_context(program(), asked) as context:
            result = root.invoke(context)
            return int(result) if isinstance(result, int) else ExitCode.DONE
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the border: whatever got here is told, once
        return _told(error, debug)


def _told(error: BaseException, debug: bool) -> int:
    cause = leaf(error)
    if isinstance(cause, click.ClickException):
        cause.show()
        return cause.exit_code
    if isinstance(cause, BrokenPipeError):
        # Whoever read our output has seen enough; nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    problem = explained(cause)
    if debug and (problem is None or not problem.code.on_order):
        traceback.print_exception(error, file=sys.stderr)
    if problem is None:
        hint = "the same command with MAYPOLE_DEBUG=1 shows where; please report it"
        problem = Problem(f"unexpected {type(cause).__name__}: {cause}", ExitCode.FAILED, hint)
    problem.show()
    return problem.code
