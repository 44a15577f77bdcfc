"""Where no broker answers, it is said which address was asked and who named it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Maypole

OPTION, ENVIRONMENT, FILE = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"


@pytest.fixture
def properties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kafka.conf"
    path.write_text(f"bootstrap.servers={FILE}\n")
    monkeypatch.setenv("MAYPOLE_KAFKA_CONFIG", str(path))
    return path


@pytest.mark.parametrize("transport", ["confluent", "aiokafka"])
def test_a_file_of_properties_is_enough_to_name_a_broker(
    maypole: Maypole, properties: Path, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setenv("MAYPOLE_TRANSPORT", transport)
    ran = maypole("topics", "list")
    assert ran.code == 5
    assert FILE in ran.err and f"(the address comes from bootstrap.servers in {properties})" in ran.err


def test_the_environment_and_the_command_line_name_another(maypole: Maypole, properties: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYPOLE_KAFKA", ENVIRONMENT)
    said = maypole("topics", "list").err
    assert ENVIRONMENT in said and "(the address comes from MAYPOLE_KAFKA)" in said and FILE not in said
    ran = maypole("--kafka", OPTION, "topics", "list")
    assert ran.code == 5
    assert OPTION in ran.err and "(the address comes from --kafka)" in ran.err
    assert not any(other in ran.err for other in (ENVIRONMENT, FILE, "MAYPOLE_KAFKA"))
