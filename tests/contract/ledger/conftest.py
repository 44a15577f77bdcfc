from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.ledger.stores import Kind, World, memory_world, postgres_world, sqlite_world
from tests.support.names import unique_agent


@pytest.fixture(params=list(Kind), ids=str)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Every store, each with an agent of its own."""
    return _world(request.param, request, tmp_path)


@pytest.fixture(params=[kind for kind in Kind if kind.several], ids=str)
def shared_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Stores that several owners work on at a time; `test_sqlite_ledger.py` shows that SQLite refuses a second one."""
    return _world(request.param, request, tmp_path)


def _world(kind: Kind, request: pytest.FixtureRequest, folder: Path) -> World:
    if kind is Kind.MEMORY:
        return memory_world()
    if kind is Kind.SQLITE:
        return sqlite_world(folder)
    return postgres_world(request.getfixturevalue("postgres").address, unique_agent())
