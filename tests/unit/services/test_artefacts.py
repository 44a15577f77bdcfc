from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maypole.services.artefacts import Artefacts, StoreUnusable


def test_what_was_kept_is_found_again_by_its_step(tmp_path: Path) -> None:
    assert Artefacts(tmp_path / "home").keep("step", "flow", "made") == "made"
    assert Artefacts(tmp_path / "home").get("step") == "made"
    assert Artefacts(tmp_path / "home").get("another") is None


def test_a_repeated_step_keeps_what_the_first_one_made(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    artefacts.keep("step", "flow", "first")
    assert artefacts.keep("step", "flow", "second") == "first"


def test_removing_twice_is_safe_and_says_so(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    artefacts.keep("step", "flow", "made")
    assert artefacts.remove("step")
    assert not artefacts.remove("step")
    assert artefacts.get("step") is None


def test_what_is_kept_of_a_flow_is_counted(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    artefacts.keep("step", "flow", "made")
    artefacts.keep("step-2", "flow", "made")
    artefacts.keep("step-3", "another", "made")
    assert (artefacts.count("flow"), artefacts.count("another"), artefacts.count("none")) == (2, 1, 0)


def test_many_threads_that_race_for_a_step_all_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        kept = set(pool.map(lambda made: Artefacts(tmp_path).keep("step", "flow", str(made)), range(32)))
    assert len(kept) == 1


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    artefacts.path.write_bytes(b"this is no database" * 400)
    with pytest.raises(
        StoreUnusable, match=r"artefacts\.sqlite3 is not a store of this agent, or is damaged .*; move it away and start the agent again"
    ):
        artefacts.get("step")
    assert artefacts.path.read_bytes().startswith(b"this is no database"), "a damaged file is left as it was found"


def test_a_file_of_another_shape_is_named_too(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(tmp_path / "artefacts.sqlite3")) as db:
        db.execute("CREATE TABLE artefacts (something_else)")
    with pytest.raises(StoreUnusable, match="is not a store of this agent"):
        Artefacts(tmp_path).get("step")


def test_a_home_that_is_a_file_is_named(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("")
    with pytest.raises(StoreUnusable, match=r"home must be a folder that can be written: .*MAYPOLE_HOME"):
        Artefacts(home).get("step")
