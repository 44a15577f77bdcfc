"""`python -m maypole.schemas [--check]`: bring the committed schemas up to date, or tell that they are not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from maypole.schemas.archive import FOLDER, changes, shipped_events, write
from maypole.schemas.errors import UnsafeSchema


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: up to date; 1: refused, or with --check out of date."""
    parser = argparse.ArgumentParser(prog="python -m maypole.schemas", description="Derives the Avro schemas from the event classes.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a committed schema is out of date")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the schemas lie (default: beside the classes)")
    options = parser.parse_args(arguments)
    try:
        events = shipped_events()
        pending = changes(events, options.folder)
    except UnsafeSchema as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command
        return 1
    refused = [change for change in pending if change.refusals]
    for change in refused:
        print(f"{change.event_type}: refused, {change.path} would not read what was written before:", file=sys.stderr)  # noqa: T201
        for version, problem in change.refusals:
            print(f"  {version}: {problem}", file=sys.stderr)  # noqa: T201
    if refused:
        print("Keep the old fields, give new ones a default, or declare a new event type.", file=sys.stderr)  # noqa: T201
        return 1
    for change in pending:
        if not options.check:
            write(change)
        print(f"{change.path}: {'out of date; run make schemas' if options.check else 'written'}", file=sys.stderr)  # noqa: T201
    if pending and options.check:
        return 1
    print(f"{len(events)} event types up to date", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
