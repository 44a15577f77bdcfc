"""Text from errors, made fit for a span."""

from __future__ import annotations

from typing import Final

LENGTH_MAX: Final = 4000


def shortened(text: str) -> str:
    """At most `LENGTH_MAX` characters, and encodable: one lone surrogate would cost the batch of spans it is exported in."""
    return text[:LENGTH_MAX].encode(errors="replace").decode()
