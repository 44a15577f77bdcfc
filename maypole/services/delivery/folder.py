"""A report into a folder, whole or not at all."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from maypole.services.delivery.destinations import DestinationRefused

_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EINTR, errno.ESTALE, errno.EBUSY})
"""A full disk, a slow share: somebody may mend them, so the step is tried again."""


def put(folder: Path, name: str, markdown: str) -> Path:
    """Write the file and return its path; the folder is made if it is missing. Blocks, syncs to disk.

    Safe to repeat: the file is written beside its place and moved over what a repetition left there; a reader never
    sees half a report. Raises `DestinationRefused` where repeating cannot help, `OSError` where it may.
    """
    path = folder / name
    beside = folder / f".{name}.{os.getpid()}.{threading.get_ident()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("w", encoding="utf-8", newline="\n") as file:
                file.write(markdown)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in _PASSING:
            raise
        raise DestinationRefused(_explained(folder, error)) from error
    return path


def _explained(folder: Path, error: OSError) -> str:
    at = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
    if isinstance(error, FileExistsError | NotADirectoryError) and not at.is_dir():
        return f"expected a folder to write the report to, found that {at} is a file"
    if error.errno == errno.ENAMETOOLONG:
        return f"expected a folder to write the report to, found a name that is too long ({len(str(folder))} characters)"
    return f"expected a folder to write the report to, found that {at} cannot be written: {error.strerror}"
