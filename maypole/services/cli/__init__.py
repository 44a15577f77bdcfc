"""The command line, `maypole`. Nothing heavy is imported here: `maypole --help` answers at once."""

from __future__ import annotations

from maypole.services.cli.entry import main

__all__ = ["main"]
