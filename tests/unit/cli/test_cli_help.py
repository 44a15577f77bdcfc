from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from maypole.schemas.event import DEADLINE_SECONDS_MAX
from maypole.services.cli.commands import COMMANDS
from maypole.services.cli.commands.publish import DEADLINE_DAYS_MAX, Duration
from tests.unit.cli.conftest import Maypole, Ran

_GROUPS = {"new": ["agent"], "agents": ["list", "show", "retire"], "topics": ["list", "plan", "apply"],
           "schemas": ["list", "show", "check", "register"], "dlq": ["list", "show", "redrive"],
           "flows": ["stuck", "cancel"], "saga": ["show", "decide"]}  # fmt: skip
_ALL = [*([name] for name in COMMANDS), *([name, sub] for name, subs in _GROUPS.items() for sub in subs)]


@pytest.mark.parametrize("words", _ALL, ids=" ".join)
def test_every_help_text_has_examples(maypole: Maypole, words: list[str]) -> None:
    ran = maypole(*words, "--help")
    assert ran.code == 0
    assert "Examples:" in ran.out
    assert f"maypole {words[0]}" in ran.out


def test_the_list_of_commands_imports_none_of_them() -> None:
    heavy = "{'pydantic', 'confluent_kafka', 'aiokafka', 'rich', 'httpx', 'fastavro', 'asyncio.base_events'}"
    code = (
        "import sys; from maypole.services.cli import main; code = main(['--help']);"
        f"print(sorted({heavy} & set(sys.modules) - {{'asyncio.base_events'}}), code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[] 0"
    assert all(name in done.stdout for name in COMMANDS)


def test_an_unknown_command_is_a_usage_error_that_names_the_nearest(maypole: Maypole) -> None:
    ran = maypole("dmo")
    assert ran.code == 2
    assert "Did you mean 'demo'" in ran.err
    assert ran.out == ""


def test_a_command_without_a_broker_says_how_to_get_one_and_exits_with_5(maypole: Maypole) -> None:
    ran = maypole("agents", "list")
    assert ran.code == 5
    assert "MAYPOLE_KAFKA is not set" in ran.err
    assert "maypole dev" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("target", [".", "..", "", "./", "a b", ".maypole"])
def test_a_target_that_is_neither_module_nor_file_is_told_as_one(maypole: Maypole, target: str) -> None:
    ran = maypole("run", target)
    assert ran.code == 3
    assert "expected a Python file with an agent at" in ran.err
    assert "Error" not in ran.err


def test_a_wrong_setting_exits_with_2_and_says_what_was_expected(maypole: Maypole) -> None:
    ran = maypole("--kafka", "nonsense", "agents", "list")
    assert ran.code == 2
    assert "expected host:port" in ran.err


def test_a_bug_is_told_without_a_traceback_and_says_how_to_see_it(maypole: Maypole, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("maypole.services.cli.event_types.known_types", broken)
    ran = maypole("schemas", "list")
    assert ran.code == 1
    assert "unexpected ZeroDivisionError: a bug" in ran.err
    assert "MAYPOLE_DEBUG=1" in ran.err
    assert "Traceback" not in ran.err
    assert "Traceback" in maypole("--debug", "schemas", "list").err


def test_schemas_that_ship_can_be_shown_without_a_broker(maypole: Maypole) -> None:
    ran = maypole("schemas", "show", "research.requested")
    assert ran.code == 0
    assert "question" in ran.out
    assert "--data" in ran.out
    assert "no broker is known" in ran.err


def test_an_unknown_type_exits_with_3_and_names_the_nearest(maypole: Maypole) -> None:
    ran = maypole("schemas", "show", "research.requestd")
    assert ran.code == 3
    assert "did you mean research.requested" in ran.err


def test_registering_without_a_registry_is_a_usage_error(maypole: Maypole) -> None:
    ran = maypole("schemas", "register")
    assert ran.code == 2
    assert "SCHEMA_REGISTRY_URL" in ran.err


def test_contracts_that_ship_pass_their_own_check(maypole: Maypole) -> None:
    ran = maypole("schemas", "check", "-o", "jsonl")
    assert ran.code == 0
    assert '"verdict": "ok"' in ran.out


@pytest.mark.parametrize("place", ["analysis", "analysis/x/1", "a/1/2/3"])
def test_a_place_that_is_none_is_a_usage_error(maypole: Maypole, place: str) -> None:
    assert maypole("dlq", "show", place).code == 2


@pytest.mark.parametrize("data", ["{", "NaN", "@missing.json"])
def test_data_that_cannot_be_read_is_refused_before_anybody_looks_for_a_broker(maypole: Maypole, data: str) -> None:
    ran = maypole("publish", "research.requested", "--data", data)
    assert ran.code == 2
    assert "--data: expected" in ran.err


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("[" * 100_000, "at most 64 lists and objects inside each other"),
        ('{"question": ' + "[" * 65 + "]" * 65 + "}", "at most 64 lists and objects inside each other"),
        ('{"question": "a", "question": "b"}', "the key 'question' twice in one object"),
        ('{"question": {"a": 1, "b": 2, "a": 3}}', "the key 'a' twice in one object"),
        ("@.", "found a folder"),
        ('{"question": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_data_that_nobody_could_mean_is_refused_with_what_was_found(maypole: Maypole, data: str, found: str) -> None:
    ran = maypole("publish", "research.requested", "--data", data)
    assert ran.code == 2
    assert found in ran.err
    assert "Traceback" not in ran.err and "unexpected" not in ran.err


@pytest.mark.parametrize("given", ["@data.json", "-"])
def test_data_is_utf_8_whatever_the_terminal_speaks(maypole: Maypole, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    def ran(found: bytes) -> Ran:
        Path("data.json").write_bytes(found)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(found), "ascii", "surrogateescape"))
        return maypole("publish", "research.requested", "--data", given)

    assert ran('{"question": "größer?"}'.encode()).code == 5, "it was read, and now a broker is looked for"
    assert ran(b"\xef\xbb\xbf{}").code == 5, "a mark before it does not matter"
    refused = ran(b'{"question": "\xff"}')
    assert refused.code == 2
    assert "expected JSON in UTF-8" in refused.err and "found the byte 0xff at 14" in refused.err


@pytest.mark.parametrize(("home", "code"), [("a.file/home", 2), ("/proc/nowhere", 1)])
def test_a_home_that_cannot_be_is_told_as_one(maypole: Maypole, home: str, code: int) -> None:
    Path("a.file").touch()
    ran = maypole("--home", home, "dev")
    assert ran.code == code
    assert "expected a folder" in ran.err and home in ran.err and "unexpected" not in ran.err


def test_a_property_that_the_client_does_not_take_is_a_usage_error(maypole: Maypole, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("kafka.conf").write_text("no.such.property=1\n")
    monkeypatch.setenv("MAYPOLE_KAFKA_CONFIG", "kafka.conf")
    for transport in ("confluent", "aiokafka"):
        monkeypatch.setenv("MAYPOLE_TRANSPORT", transport)
        ran = maypole("--kafka", "127.0.0.1:1", "agents", "list")
        assert ran.code == 2
        assert "no.such.property" in ran.err and "MAYPOLE_KAFKA_CONFIG" in ran.err and "unexpected" not in ran.err


@pytest.mark.parametrize("option", ["--timeout", "--deadline"])
@pytest.mark.parametrize("time", ["0s", "ten", "5 years", "-1s", "0.1ms", "87601h", "9" * 400 + "h"])
def test_a_time_that_is_none_or_that_nobody_could_mean_is_a_usage_error(maypole: Maypole, option: str, time: str) -> None:
    ran = maypole("publish", "research.requested", option, time)
    assert ran.code == 2
    assert f"'{option}'" in ran.err
    assert "500ms, 60s, 5m" in ran.err
    assert len(ran.err) < 500


@pytest.mark.parametrize("time", ["8d", "200h"])
def test_a_deadline_beyond_its_limit_is_told_the_limit(maypole: Maypole, time: str) -> None:
    ran = maypole("publish", "research.requested", "--deadline", time)
    assert ran.code == 2 and f"from 1ms to 7d, found '{time}'" in ran.err
    assert DEADLINE_DAYS_MAX * 24 * 60 * 60 == DEADLINE_SECONDS_MAX
    assert Duration(7).convert("7d", None, None) == DEADLINE_SECONDS_MAX


def test_an_address_is_blamed_on_whoever_gave_it(maypole: Maypole, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = maypole("--kafka", "banana", "agents", "list")
    assert ran.code == 2 and "--kafka: expected host:port" in ran.err and "MAYPOLE_KAFKA" not in ran.err
    monkeypatch.setenv("MAYPOLE_KAFKA", "banana")
    assert "MAYPOLE_KAFKA: expected host:port" in maypole("agents", "list").err


@pytest.mark.parametrize("option", ["--key", "--idempotency-key"])
@pytest.mark.parametrize("key", ["", "a\nb", "事" * 342], ids=["empty", "two lines", "long in bytes"])
def test_a_key_that_is_none_is_a_usage_error_with_a_way_out(maypole: Maypole, option: str, key: str) -> None:
    ran = maypole("publish", "research.requested", option, key)
    assert ran.code == 2
    assert f"'{option}'" in ran.err and "leave the option out" in ran.err and len(ran.err) < 500


def test_the_help_of_publish_shows_the_default_as_it_is_typed(maypole: Maypole) -> None:
    told = " ".join(maypole("publish", "--help").out.split())
    assert "[default: 60s]" in told
    assert "1 refused: the idempotency key started a flow with another event" in told
