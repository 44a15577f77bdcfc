"""Ctrl-C and SIGTERM, at any moment: the first one stops what is under way, the second one ends the process at once.

While nothing is under way (modules are imported, somebody is asked something) the first one ends the process too: there
is nothing to put away. Imported before everything else, so it imports next to nothing.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

INTERRUPTED: Final = 128 + signal.SIGINT
TERMINATED: Final = 128 + signal.SIGTERM
_WORDS: Final = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_SHOW_CURSOR: Final = b"\x1b[?25h"

Stop = Callable[[], None]
"""Begins to stop what is under way. Runs inside a signal handler: it may only schedule."""

_stop: Stop | None = None
_asked: int | None = None
"""The signal that was heard first."""


def install() -> None:
    """From here on signals mean what this module says. For a process that is ours, from its main thread, once."""
    arrived, heard = os.pipe()
    os.set_blocking(heard, False)
    for number in _WORDS:
        signal.signal(number, _heard)
    signal.set_wakeup_fd(heard, warn_on_full_buffer=False)
    # Python's handlers run on the main thread, and not while it sits in a foreign library: this thread always hears.
    threading.Thread(target=_watch, args=(arrived,), name="interrupts", daemon=True).start()
    # Registered first, so called last: a command that is done stays done while the interpreter takes itself apart.
    atexit.register(_ignore)


@contextmanager
def stopping_with(stop: Stop | None) -> Iterator[None]:
    """While the body runs, the first signal calls `stop`. None: nothing is under way, and it ends the process."""
    global _stop
    before, _stop = _stop, stop
    try:
        yield
    finally:
        _stop = before


def asked() -> tuple[str, int]:
    """The word and the exit code for the signal that was heard; for Ctrl-C where this process does not listen itself."""
    number = _asked or signal.SIGINT
    return _WORDS[signal.Signals(number)], 128 + number


def leave(code: int) -> NoReturn:
    """End the process without waiting for threads: one may be asking a broker that does not answer."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # whoever read it is gone
    os._exit(code)


def _heard(number: int, frame: FrameType | None) -> None:
    global _asked
    if _asked or _stop is None:
        _end(number)
    _asked = number
    _stop()


def _watch(arrived: int) -> None:
    heard: list[int] = []
    while len(heard) < 2:
        heard += [number for number in os.read(arrived, 64) if number in _WORDS]
    _end(heard[1])


def _ignore() -> None:
    for number in _WORDS:
        signal.signal(number, signal.SIG_IGN)


def _end(number: int) -> NoReturn:
    """Nothing is lost: what was not committed is delivered again."""
    # A live view hides the cursor, and is not asked to bring it back.
    os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + _WORDS[signal.Signals(number)].encode() + b"\n")
    os._exit(128 + number)
