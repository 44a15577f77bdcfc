"""Downloads and builds, kept outside the checkout: made once, whole or not at all, and looked at before each use."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deploy.local.tools import say

_MANIFEST: Final = "manifest.json"


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """`MAYPOLE_CACHE`, else `maypole` in the user's cache folder."""
    own = environment.get("MAYPOLE_CACHE")
    if own:
        return Path(own).absolute()
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maypole"


def cached(name: str, recipe: str, make: Callable[[Path], None], news: str) -> Path:
    """The folder that `make` filled for this recipe, filling it now if it is not there or not what was put there.

    `recipe` is everything the content depends on (a POM, a go.sum): another recipe is another folder. Two processes that
    want the same one wait for each other; one that is interrupted leaves nothing behind that looks finished.
    """
    root = cache_folder()
    folder = root / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f"{folder.name}.lock"):
        if folder.exists():
            if _is_whole(folder):
                return folder
            say(f"{folder} is not what was put there: making it anew")
            shutil.rmtree(folder)
        say(news)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".part", dir=root))
        try:
            make(unfinished)
            (unfinished / _MANIFEST).write_text(json.dumps(_digests(unfinished), indent=1))
            unfinished.rename(folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that is making {path.stem}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_whole(folder: Path) -> bool:
    try:
        expected = json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    return bool(expected == _digests(folder))


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _MANIFEST:
            with path.open("rb") as file:
                digests[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
