"""Commands and groups whose help shows examples that work as typed."""

from __future__ import annotations

import click

from maypole.services.cli.program import in_text


class Command(click.Command):
    def get_help(self, ctx: click.Context) -> str:
        return in_text(super().get_help(ctx))


class Group(click.Group):
    """A group whose `list` is what it does when no command is named."""

    command_class = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        asks_for_help = {"-h", "--help"} & set(args[:1])
        if "list" in self.commands and not asks_for_help and (not args or args[0].startswith("-")):
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        return in_text(super().get_help(ctx))


def examples(*lines: str) -> str:
    """The end of a help text: one command a line, kept as it is written."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
