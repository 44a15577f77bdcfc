"""Commands and groups whose help shows examples that work as typed."""

from __future__ import annotations

import click

from maypole.services.cli.program import in_text


class Command(click.Command):
    def get_help(self, ctx: click.Context) -> str:
        return in_text(super().get_help(ctx))


class Group(click.Group):
    command_class = Command

    def get_help(self, ctx: click.Context) -> str:
        return in_text(super().get_help(ctx))


def examples(*lines: str) -> str:
    """The end of a help text: one command a line, kept as it is written."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
