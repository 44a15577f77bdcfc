"""Settings are read once; a wrong one is named with what was expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maypole.settings import WrongSetting, read_settings


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(tmp_path: Path) -> None:
    (tmp_path / "maypole.toml").write_text('[maypole]\nkafka = "file:1"\ntransport = "aiokafka"\n')
    assert read_settings({}, tmp_path).kafka == "file:1"
    assert read_settings({"MAYPOLE_KAFKA": "env:2"}, tmp_path).kafka == "env:2"
    chosen = read_settings({"MAYPOLE_KAFKA": "env:2"}, tmp_path, {"MAYPOLE_KAFKA": "option:3"})
    assert chosen.kafka == "option:3" and chosen.transport == "aiokafka"


def test_endpoints_in_the_home_folder_are_found_and_yield_to_settings(tmp_path: Path) -> None:
    home = tmp_path / ".maypole"
    home.mkdir()
    (home / "endpoints.json").write_text(json.dumps({"kafka": "127.0.0.1:9", "otlp": "http://127.0.0.1:4318", "pid": 1}))
    found = read_settings({}, tmp_path)
    assert found.kafka == "127.0.0.1:9" and "endpoints.json" in found.kafka_source and found.otlp_endpoint == "http://127.0.0.1:4318"
    assert read_settings({"MAYPOLE_KAFKA": "other:1"}, tmp_path).kafka_source == "MAYPOLE_KAFKA"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAYPOLE_KAFKA", "localhost"),
        ("MAYPOLE_KAFKA", "localhost:99999"),
        ("MAYPOLE_TRANSPORT", "rabbit"),
        ("MAYPOLE_TRACING", "loud"),
        ("MAYPOLE_STORE", "mysql://127.0.0.1/ledgers"),
        ("SCHEMA_REGISTRY_URL", "registry:8081"),
        ("SCHEMA_REGISTRY_URL", "http://registry:99999"),
        ("SCHEMA_REGISTRY_URL", "http://[registry"),
        ("SCHEMA_REGISTRY_URL", "http://user@"),
        ("MAYPOLE_KAFKA_CONFIG", "nowhere.conf"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(WrongSetting, match=name):
        read_settings({name: value}, tmp_path)


def test_every_wrong_setting_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "maypole.toml").write_text('[maypole]\nkafkaa = "x:1"\nstorre = "sqlite"\n')
    (tmp_path / "home").write_text("a file")
    wrong = {
        "MAYPOLE_HOME": "home",
        "MAYPOLE_KAFKA": "localhost",
        "MAYPOLE_KAFKA_CONFIG": "nowhere.conf",
        "MAYPOLE_STORE": "mysql://127.0.0.1/ledgers",
        "MAYPOLE_TRANSPORT": "rabbit",
        "MAYPOLE_TRACING": "loud",
        "SCHEMA_REGISTRY_URL": "registry:8081",
        "MAYPOLE_JAEGER_URL": "jaeger",
    }
    with pytest.raises(WrongSetting, match=r"^9 settings cannot be used:\n") as caught:
        read_settings(wrong, tmp_path)
    told = str(caught.value)
    assert [name for name in (*wrong, "KAFKAA, MAYPOLE_STORRE are no settings") if name not in told] == []
    assert len(told.splitlines()) == 1 + len(wrong) + 1


def test_an_unknown_name_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "maypole.toml").write_text("[maypole]\nkafkaa = 'x:1'\n")
    with pytest.raises(WrongSetting, match="KAFKAA"):
        read_settings({}, tmp_path)


def test_a_corrupt_endpoints_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text("{")
    with pytest.raises(WrongSetting, match="delete the file"):
        read_settings({"MAYPOLE_HOME": str(tmp_path)}, tmp_path)


@pytest.mark.parametrize("endpoints", [{"kafka": 5}, {"kafka": "nowhere"}, {"registry": ["x"]}, {"jaeger": "localhost"}])
def test_an_endpoint_that_is_no_address_is_named_with_its_file(tmp_path: Path, endpoints: dict[str, object]) -> None:
    (tmp_path / "endpoints.json").write_text(json.dumps(endpoints))
    (name,) = endpoints
    with pytest.raises(WrongSetting, match=rf"endpoints\.json: {name}: expected .* found .*; delete the file"):
        read_settings({"MAYPOLE_HOME": str(tmp_path)}, tmp_path)


def test_librdkafka_properties_are_read_as_kcat_reads_them(tmp_path: Path) -> None:
    (tmp_path / "kafka.conf").write_text("# comment\n\nsecurity.protocol = SASL_SSL\nsasl.password=a=b\n")
    found = read_settings({"MAYPOLE_KAFKA_CONFIG": "kafka.conf"}, tmp_path).kafka_config
    assert found == {"security.protocol": "SASL_SSL", "sasl.password": "a=b"}
    (tmp_path / "kafka.conf").write_text("nonsense\n")
    with pytest.raises(WrongSetting, match=r"kafka\.conf:1"):
        read_settings({"MAYPOLE_KAFKA_CONFIG": "kafka.conf"}, tmp_path)


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("bootstrap.servers=one:1, two:2", "one:1,two:2"),
        ("metadata.broker.list=one:1", "one:1"),
        ("bootstrap.servers=SASL_SSL://one,two:2", "one:9092,two:2"),
        ("bootstrap.servers=[::1]", "[::1]:9092"),
    ],
)
def test_a_broker_named_among_the_properties_is_used_where_nobody_set_one(tmp_path: Path, line: str, address: str) -> None:
    (tmp_path / "kafka.conf").write_text(f"security.protocol=SASL_SSL\n{line}\n")
    (tmp_path / ".maypole").mkdir()
    (tmp_path / ".maypole" / "endpoints.json").write_text(json.dumps({"kafka": "127.0.0.1:9"}))
    said = {"MAYPOLE_KAFKA_CONFIG": "kafka.conf"}
    found = read_settings(said, tmp_path)
    assert found.kafka == address and found.kafka_source == f"{line.partition('=')[0]} in {tmp_path / 'kafka.conf'}"
    for settings in (
        found,
        from_environment := read_settings(said | {"MAYPOLE_KAFKA": "env:2"}, tmp_path),
        from_option := read_settings(said | {"MAYPOLE_KAFKA": "env:2"}, tmp_path, {"MAYPOLE_KAFKA": "option:3"}),
    ):
        assert settings.kafka_config == {"security.protocol": "SASL_SSL"}
    assert (from_environment.kafka, from_environment.kafka_source) == ("env:2", "MAYPOLE_KAFKA")
    assert (from_option.kafka, from_option.kafka_source) == ("option:3", "--kafka")


def test_a_broker_among_the_properties_that_is_no_address_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "kafka.conf").write_text("bootstrap.servers=one:many\n")
    with pytest.raises(WrongSetting, match=r"bootstrap\.servers in .*kafka\.conf: expected host:port"):
        read_settings({"MAYPOLE_KAFKA_CONFIG": "kafka.conf"}, tmp_path)


def test_whoever_named_the_broker_in_the_file_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "maypole.toml").write_text('[maypole]\nkafka = "file:1"\n')
    assert read_settings({}, tmp_path).kafka_source == str(tmp_path / "maypole.toml")


def test_state_of_another_cluster_lies_in_another_folder(tmp_path: Path) -> None:
    settings = read_settings({}, tmp_path)
    assert settings.cluster_home("abc/../x") != settings.cluster_home("abc")
    assert settings.cluster_home("abc/../x").parent == settings.cluster_home("abc").parent


def test_steps_are_kept_in_sqlite_unless_a_database_is_named(tmp_path: Path) -> None:
    assert read_settings({}, tmp_path).store == "sqlite"
    address = "postgresql://maypole@/ledgers?host=/run/postgresql"
    assert read_settings({"MAYPOLE_STORE": address}, tmp_path).store == address
