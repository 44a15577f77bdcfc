"""Whether an exception is an order to the process, or was raised by the code it came out of.

`KeyboardInterrupt` and `SystemExit` come out of a handler in two ways: somebody pressed Ctrl-C while it ran, or it
raised them itself. The first ends the process; the second is a failure of the handler, and ending the process for it
would do so again at every restart.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dis import opmap
from functools import partial
from types import CodeType, TracebackType
from typing import Final

_RAISE: Final = opmap["RAISE_VARARGS"]


def raised_by_a_signal(error: BaseException) -> bool:
    """Python calls handlers of signals between two instructions of whatever runs, so the traceback tells them apart."""
    if isinstance(error, Exception):
        return False
    handlers = set(_handlers_in_python())
    innermost: TracebackType | None = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        innermost, trace = trace, trace.tb_next
    if innermost is None or not isinstance(error, KeyboardInterrupt):
        return False
    # Python's own handler has no frame: its exception appears at an instruction that raises nothing.
    return innermost.tb_frame.f_code.co_code[innermost.tb_lasti] != _RAISE


def _handlers_in_python() -> Iterator[CodeType]:
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        while isinstance(handler, partial):  # asyncio's own for Ctrl-C
            handler = handler.func
        code = getattr(handler, "__code__", None)
        if code is not None:
            yield code
