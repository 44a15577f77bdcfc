"""Logs as lines of `event key=value` on standard error. Bodies of events never get here: nobody logs them."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime
from typing import Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS: Final = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31", logging.INFO: "32"}
_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)


class LogLines(logging.Formatter):
    """`12:00:01 warning step.attempt_failed agent=analysis attempt=1`. Values with blanks are quoted as JSON strings."""

    def __init__(self, *, coloured: bool) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = record.levelname.lower()
        if self._coloured and record.levelno in _COLOURS:
            level = f"\x1b[{_COLOURS[record.levelno]}m{level}\x1b[0m"
        fields = " ".join(f"{name}={_plain(value)}" for name, value in vars(record).items() if name not in _STANDARD)
        line = f"{at} {level} {record.getMessage()}{' ' + fields if fields else ''}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info and record.exc_info[0] else line


def log_to_stderr(verbosity: int) -> None:
    """Warnings and worse; `verbosity` 1 adds what happens, 2 everything of ours."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogLines(coloured=sys.stderr.isatty() and not os.environ.get("NO_COLOR")))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("maypole").setLevel(_LEVELS[min(verbosity, len(_LEVELS) - 1)])
    # What the Kafka client says by itself is about reconnecting; delivery waits by itself and says what it waits for.
    logging.getLogger("maypole.bus.kafka.librdkafka").setLevel(logging.CRITICAL if verbosity < len(_LEVELS) - 1 else logging.DEBUG)


def _plain(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(letter in text for letter in ' "=\n\t') else text
