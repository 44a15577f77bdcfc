"""Programs that are shipped as Python packages: for machines whose own are too old, or that have none."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.local.cache import cached
from deploy.local.tools import run_patiently


def packaged(name: str, lock: Path, news: str) -> Path:
    """The folder with what `lock` names by version and hash, from the package index, kept in the cache. Raises `LocalFault`."""

    def install(folder: Path) -> None:
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile", "--only-binary=:all:", "--require-hashes")
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), "--requirement", str(lock)]
        run_patiently(command, folder, 600)

    return cached(name, lock.read_text(), install, news)
