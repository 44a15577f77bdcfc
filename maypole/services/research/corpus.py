"""What research may read: the Python language reference by default, a folder of one's own when one is named."""

from __future__ import annotations

import codecs
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from maypole.services.research import markdown, pydoc, restructured
from maypole.services.research.passages import Passage, pack
from maypole.services.research.sections import Parse

FILE_BYTES_MAX = 8 * 1024 * 1024

_PARSERS: Mapping[str, Parse] = {
    ".md": markdown.parse,
    ".rst": restructured.parse,
    ".txt": lambda text: restructured.parse(text, restructured.plain),
}


class CorpusUnusable(ValueError):
    """There is nothing to search in. Names the folder, what was expected there and what was found."""


class Corpus(Protocol):
    @property
    def name(self) -> str:
        """For people: what is searched."""
        ...

    def digest(self) -> str:
        """Changes whenever the passages may have changed. Cheap: asked for before every search. Raises `CorpusUnusable`."""
        ...

    def passages(self) -> Iterator[Passage]:
        """Every passage once, in a fixed order. Raises `CorpusUnusable`."""
        ...

    def left_out(self) -> tuple[str, ...]:
        """One line for each thing that is there and is not read, with the reason. Complete once `passages` is exhausted."""
        ...


def corpus_at(folder: Path | None) -> Corpus:
    """The corpus that `MAYPOLE_CORPUS` names; None: the language reference. Raises `CorpusUnusable`."""
    return LanguageReference() if folder is None else Folder(folder.expanduser().absolute())


@dataclass(frozen=True, slots=True)
class LanguageReference:
    name: str = f"the Python {sys.version_info.major}.{sys.version_info.minor} language reference"

    def digest(self) -> str:
        # The interpreter's own text changes with the interpreter only.
        return hashlib.sha256(f"pydoc_data {sys.version}".encode()).hexdigest()

    def passages(self) -> Iterator[Passage]:
        # Topics overlap (`compound` contains `try` whole): the shortest topic that holds a passage names it best.
        seen: set[str] = set()
        for topic, text in sorted(pydoc.topics().items(), key=lambda item: (len(item[1]), item[0])):
            for passage in pack(f"python:{topic}", pydoc.parse(text), topic):
                if passage.text not in seen:
                    seen.add(passage.text)
                    yield passage

    def left_out(self) -> tuple[str, ...]:
        return ()


class Folder:
    """Every `.md`, `.txt` and `.rst` file under a folder, UTF-8 or UTF-16 with a mark, each up to 8 MiB.

    Hidden, binary, oversized and undecodable files are left out, each with a line that says so. Links to folders
    are not followed. Raises `CorpusUnusable` at once when it is no folder, and when read if no file is left.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise CorpusUnusable(f"the corpus must be a folder; {root} {'is a file' if root.exists() else 'does not exist'}")
        self._root = root
        self._left_out: dict[str, None] = {}

    @property
    def name(self) -> str:
        return str(self._root)

    def digest(self) -> str:
        digest = hashlib.sha256(str(self._root).encode(errors="surrogateescape"))
        for label, path in self._files():
            stat = path.stat()
            digest.update(f"\0{label}\0{stat.st_size}\0{stat.st_mtime_ns}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def passages(self) -> Iterator[Passage]:
        found = False
        for label, path in self._files():
            text = self._read(label, path)
            if text is None:
                continue
            for passage in pack(label, _PARSERS[path.suffix.lower()](text), path.stem):
                found = True
                yield passage
        if not found:
            raise CorpusUnusable(self._nothing_to_read())

    def left_out(self) -> tuple[str, ...]:
        return tuple(self._left_out)

    def _files(self) -> Iterator[tuple[str, Path]]:
        others = 0
        for folder, folders, files in os.walk(self._root, onerror=self._unreadable_folder):
            for hidden in sorted(name for name in folders if name.startswith(".")):
                self._leave_out(self._label(Path(folder, hidden)) + "/", "hidden")
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                path = Path(folder, name)
                if path.suffix.lower() not in _PARSERS:
                    others += 1
                elif name.startswith("."):
                    self._leave_out(self._label(path), "hidden")
                elif path.is_file():
                    yield self._label(path), path
                else:
                    self._leave_out(self._label(path), "not a regular file, or a link that leads nowhere")
        if others:
            self._leave_out(f"{others} files", f"not {_suffixes()}")

    def _read(self, label: str, path: Path) -> str | None:
        try:
            return _text_of(path)
        except _Unreadable as error:
            self._leave_out(label, str(error))
            return None

    def _leave_out(self, what: str, reason: str) -> None:
        self._left_out[f"{what}: {reason}"] = None

    def _unreadable_folder(self, error: OSError) -> None:
        self._leave_out(self._label(Path(error.filename)) + "/", f"cannot be read: {error.strerror}")

    def _label(self, path: Path) -> str:
        """The path below the root; bytes that are no UTF-8 are shown escaped, because a source is text on a topic."""
        return path.relative_to(self._root).as_posix().encode(errors="surrogateescape").decode(errors="backslashreplace")

    def _nothing_to_read(self) -> str:
        there = "; ".join(self._left_out) or "it is empty"
        return f"no text to search in {self._root}: expected {_suffixes()} files with words in them, found: {there}"


class _Unreadable(ValueError):
    pass


def _text_of(path: Path) -> str:
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= FILE_BYTES_MAX else b""
    except OSError as error:
        raise _Unreadable(f"cannot be read: {error.strerror}") from error
    if size > FILE_BYTES_MAX:
        raise _Unreadable(f"{size} bytes, more than {FILE_BYTES_MAX}")
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not marked and b"\0" in data[:8192]:
        raise _Unreadable("binary")
    encoding = "UTF-16" if marked else "UTF-8"
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise _Unreadable(f"not {encoding}: byte {error.start} is 0x{data[error.start]:02x}; save it as UTF-8") from error


def _suffixes() -> str:
    *most, last = sorted(_PARSERS)
    return f"{', '.join(most)} or {last}"
