"""How much was explored belongs to the result: it is printed at the end of the run."""

from __future__ import annotations

from typing import Final

import pytest

REPORTS: Final = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = config.stash.get(REPORTS, [])
    if reports:
        terminalreporter.section("explored")
        for report in reports:
            terminalreporter.write_line(report)
