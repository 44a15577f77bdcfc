"""`--corpus DIR` of the commands that run agents: where research looks, and whether there is anything to find."""

from __future__ import annotations

from pathlib import Path

import click

from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.session import Session


def _chosen(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    session = context.find_object(Session)
    if value is not None and session is not None:
        session.overrides["MAYPOLE_CORPUS"] = str(Path(value).absolute())


corpus_option = click.option(
    "--corpus",
    metavar="DIR",
    callback=_chosen,
    expose_value=False,
    help="Where research looks (MAYPOLE_CORPUS): a folder of Markdown, text and reStructuredText. Default: Python's language reference.",
)


def check_corpus(session: Session) -> None:
    """Raises `Problem` for a folder in which nothing can be found, before anything starts. Reads until the first passage."""
    from maypole.services.research.corpus import CorpusUnusable, corpus_at

    folder = session.settings.corpus
    if folder is None:
        return
    said_by = "--corpus" if "MAYPOLE_CORPUS" in session.overrides else "MAYPOLE_CORPUS"
    if not folder.is_dir():
        raise Problem(f"{said_by}: expected a folder, found {'a file' if folder.exists() else 'nothing'} at {folder}", ExitCode.NOT_FOUND)
    try:
        next(corpus_at(folder).passages())
    except CorpusUnusable as error:
        raise Problem(f"{said_by}: {error}", ExitCode.USAGE) from None
