"""The command line, `maypole`. Nothing is imported here but what must be there first: `maypole --help` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from maypole.services.cli import interrupts

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Without `arguments` the process is ours: they and its signals are taken."""
    if arguments is None:
        interrupts.install()
    # Imported under the eyes of `interrupts`: whoever changes their mind at once sees one word and no traceback.
    from maypole.services.cli.entry import answer

    code = answer(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and code in (interrupts.INTERRUPTED, interrupts.TERMINATED):
        interrupts.leave(code)
    return code
