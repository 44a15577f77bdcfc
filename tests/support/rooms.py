"""How long the tests of each room took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pytest


def seconds_by_room(reports: Iterable[object]) -> list[tuple[str, float]]:
    """Folders of tests with what their tests took, set-up and tear-down included; the longest first.

    A service that many rooms use counts where it was used first.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    for report in reports:
        if isinstance(report, pytest.TestReport):
            seconds[report.nodeid.partition("::")[0].rpartition("/")[0]] += report.duration
    return sorted(seconds.items(), key=lambda each: each[1], reverse=True)
