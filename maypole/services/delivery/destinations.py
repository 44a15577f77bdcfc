"""Where a report was asked to go, read strictly: a destination that cannot work is refused before anything is written."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

_SLUG_MAX = 60
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class DestinationRefused(ValueError):
    """No repetition can help. Says what was expected and what was found."""


@dataclass(frozen=True, slots=True)
class ToFolder:
    path: Path


@dataclass(frozen=True, slots=True)
class ToAddress:
    url: str

    @property
    def shown(self) -> str:
        """Without user, password and query: those may be secrets, and an event is for everybody."""
        parts = urlsplit(self.url)
        return SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "").geturl()


Destination = ToFolder | ToAddress


def destination(asked: str | None, default_folder: Path) -> Destination:
    """An absolute folder, a `file://` address of one, or an `http(s)://` address; None or blank is the default folder.

    Raises `DestinationRefused`.
    """
    asked = (asked or "").strip()
    if not asked:
        return ToFolder(default_folder)
    if "\0" in asked:
        raise DestinationRefused("a folder's name cannot hold a zero byte")
    try:
        address = urlsplit(asked)
        host, _ = address.hostname, address.port
    except ValueError as error:
        raise DestinationRefused(f"cannot read {asked!r} as an address: {error}") from None
    if address.scheme in ("http", "https"):
        if not host:
            raise DestinationRefused(f"expected http(s)://host/path, found no host in {asked!r}")
        return ToAddress(asked)
    if address.scheme == "file" and address.netloc in ("", "localhost"):
        asked = address.path
    elif "://" in asked:
        raise DestinationRefused(f"expected an absolute folder or an http(s) address, found {asked!r}")
    folder = Path(asked)
    if not folder.is_absolute():
        raise DestinationRefused(f"expected an absolute folder, found {asked!r}: the agent does not know which folder you are in")
    return ToFolder(folder)


def file_name(question: str, flow_id: str) -> str:
    """`how-do-try-and-finally-interact-1f3a9c2e.md`: readable, and different for every flow."""
    plain = unicodedata.normalize("NFKD", question).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.replace("'", "")).strip("-")
    if len(slug) > _SLUG_MAX:
        slug = slug[: _SLUG_MAX + 1].rpartition("-")[0] or slug[:_SLUG_MAX]
    # Our own flow ids are recognised by their first figures; a foreign one may be any text.
    short = flow_id[:8] if _UUID.fullmatch(flow_id) else sha256(flow_id.encode()).hexdigest()[:8]
    return f"{slug or 'report'}-{short}.md"
