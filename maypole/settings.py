"""Settings, read once at start. The command line wins over the environment, which wins over `maypole.toml`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast
from urllib.parse import urlsplit

T = TypeVar("T")
D = TypeVar("D")
TransportName = Literal["confluent", "aiokafka"]
TracingName = Literal["fast", "sdk", "off"]

_NAMES: Final = (
    "MAYPOLE_KAFKA",
    "MAYPOLE_KAFKA_CONFIG",
    "MAYPOLE_HOME",
    "MAYPOLE_STORE",
    "MAYPOLE_TRANSPORT",
    "MAYPOLE_TRACING",
    "MAYPOLE_JAEGER_URL",
    "MAYPOLE_CORPUS",
    "SCHEMA_REGISTRY_URL",
)
_BROKER_PROPERTIES: Final = ("bootstrap.servers", "metadata.broker.list")
"""Two names of one property of librdkafka."""
_FILE: Final = "maypole.toml"
ENDPOINTS_FILE: Final = "endpoints.json"


class WrongSetting(ValueError):
    """Settings that cannot be used. Names each, what was expected, what was found and where."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What `maypole dev`, `make up` and `make local` leave in the home folder for every command run beside it."""

    kafka: str | None = None
    registry: str | None = None
    otlp: str | None = None
    jaeger: str | None = None
    store: str = "sqlite"


@dataclass(frozen=True, slots=True)
class Settings:
    """`kafka` is None where nobody said where a broker is; `kafka_source` says who did. `kafka_config` names no broker."""

    home: Path = Path(".maypole")
    kafka: str | None = None
    kafka_source: str = "nowhere"
    kafka_config: Mapping[str, str] = field(default_factory=dict)
    store: str = "sqlite"
    """`sqlite`, for one instance of an agent, or a `postgresql://` address, for several."""
    transport: TransportName = "confluent"
    registry_url: str | None = None
    tracing: TracingName = "fast"
    """`fast` is whatever costs least and says the same; as yet that is the SDK."""
    otlp_endpoint: str | None = None
    """Where spans go when OpenTelemetry's own variables do not say; None: nowhere."""
    jaeger_url: str | None = None
    corpus: Path | None = None

    def at(self, kafka: str, source: str) -> Settings:
        return replace(self, kafka=kafka, kafka_source=source)

    def cluster_home(self, cluster_id: str) -> Path:
        """State belongs to one cluster: offsets and ids of another would be nonsense beside it."""
        safe = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in cluster_id)
        return self.home / "clusters" / (safe or "unnamed")


def read_settings(environment: Mapping[str, str], directory: Path, overrides: Mapping[str, str] | None = None) -> Settings:
    """Read all sources once; `overrides` are the command line's. Raises `WrongSetting` naming every setting that cannot be used."""
    wrong = _Wrong()
    values = {
        **wrong.unless({}, lambda: _from_file(directory / _FILE)),
        **{name: environment[name] for name in _NAMES if environment.get(name)},
        **(overrides or {}),
    }
    home = _home(values, directory)
    endpoints = wrong.unless(Endpoints(), lambda: read_endpoints(home))
    config_file = values.get("MAYPOLE_KAFKA_CONFIG")
    config = wrong.unless({}, lambda: _read_properties(config_file, directory))
    kafka, source = wrong.unless((None, "nowhere"), lambda: _broker(values, overrides or {}, environment, directory, config))
    transport = wrong.unless(
        "", lambda: _one_of("MAYPOLE_TRANSPORT", values.get("MAYPOLE_TRANSPORT", "confluent"), ("confluent", "aiokafka"))
    )
    tracing = wrong.unless("", lambda: _one_of("MAYPOLE_TRACING", values.get("MAYPOLE_TRACING", "fast"), ("fast", "sdk", "off")))
    corpus = values.get("MAYPOLE_CORPUS")
    settings = Settings(
        home=home,
        kafka=kafka or endpoints.kafka,
        kafka_source=source if kafka else str(home / ENDPOINTS_FILE) if endpoints.kafka else "nowhere",
        # Where the broker is has been decided; a client that reads it here again would decide otherwise.
        kafka_config={name: value for name, value in config.items() if name not in _BROKER_PROPERTIES},
        store=wrong.unless("", lambda: _store(values.get("MAYPOLE_STORE") or endpoints.store)),
        transport=cast(TransportName, transport),
        registry_url=wrong.unless(None, lambda: _url("SCHEMA_REGISTRY_URL", values.get("SCHEMA_REGISTRY_URL"))) or endpoints.registry,
        tracing=cast(TracingName, tracing),
        otlp_endpoint=endpoints.otlp,
        jaeger_url=wrong.unless(None, lambda: _url("MAYPOLE_JAEGER_URL", values.get("MAYPOLE_JAEGER_URL"))) or endpoints.jaeger,
        corpus=None if corpus is None else directory / corpus,
    )
    wrong.require_none()
    return settings


class _Wrong:
    """What is wrong with each setting, so that all of it is told at once."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def unless(self, instead: D, read: Callable[[], T]) -> T | D:
        try:
            return read()
        except WrongSetting as error:
            self._found.append(str(error))
            return instead

    def require_none(self) -> None:
        if len(self._found) == 1:
            raise WrongSetting(self._found[0])
        if self._found:
            raise WrongSetting("\n  ".join((f"{len(self._found)} settings cannot be used:", *self._found)))


def read_home(environment: Mapping[str, str], directory: Path) -> Path:
    """`Settings.home` alone, for whoever makes what the other settings would name. Raises `WrongSetting`."""
    named = {"MAYPOLE_HOME": environment["MAYPOLE_HOME"]} if environment.get("MAYPOLE_HOME") else {}
    return _require_folder(_home({**_from_file(directory / _FILE), **named}, directory))


def _home(values: Mapping[str, str], directory: Path) -> Path:
    home = Path(values.get("MAYPOLE_HOME", ".maypole"))
    return home if home.is_absolute() else directory / home


def _require_folder(home: Path) -> Path:
    if home.exists() and not home.is_dir():
        raise WrongSetting(f"MAYPOLE_HOME: expected a folder, found a file at {home}")
    return home


def _broker(
    values: Mapping[str, str], overrides: Mapping[str, str], environment: Mapping[str, str], directory: Path, config: Mapping[str, str]
) -> tuple[str | None, str]:
    """The address that somebody set, and where: a setting of its own, or else the properties for librdkafka."""
    kafka = values.get("MAYPOLE_KAFKA")
    if kafka is not None:
        if "MAYPOLE_KAFKA" in overrides:
            _check_addresses(kafka, "--kafka")
            return kafka, "--kafka"
        _check_addresses(kafka, "MAYPOLE_KAFKA")
        return kafka, "MAYPOLE_KAFKA" if environment.get("MAYPOLE_KAFKA") else str(directory / _FILE)
    for name in _BROKER_PROPERTIES:
        if name in config:
            source = f"{name} in {directory / values['MAYPOLE_KAFKA_CONFIG']}"
            addresses = _addresses_of_librdkafka(config[name])
            _check_addresses(addresses, source)
            return addresses, source
    return None, "nowhere"


def _addresses_of_librdkafka(value: str) -> str:
    """librdkafka also takes a protocol before the host, which `security.protocol` has to repeat, and a host without its usual port."""
    hosts = [address.strip().rpartition("://")[2] for address in value.split(",")]
    return ",".join(host if ":" in host.rpartition("]")[2] else f"{host}:9092" for host in hosts if host)


def read_endpoints(home: Path) -> Endpoints:
    path = _require_folder(home) / ENDPOINTS_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Endpoints()
    except NotADirectoryError:
        raise WrongSetting(f"MAYPOLE_HOME: expected a folder, found that part of {home} is a file") from None
    except (OSError, ValueError) as error:
        raise WrongSetting(
            f"{path}: expected JSON as `maypole dev` writes it, found {error}; delete the file or start the services again"
        ) from None
    if not isinstance(found, dict):
        raise WrongSetting(f"{path}: expected a JSON object, found {type(found).__name__}; delete the file or start the services again")
    known = {name: found[name] for name in ("kafka", "registry", "otlp", "jaeger", "store") if found.get(name)}
    try:
        for name, value in known.items():
            if not isinstance(value, str):
                raise WrongSetting(f"{name}: expected an address as text, found {value!r}")
            if name == "kafka":
                _check_addresses(value, name)
            elif name == "store":
                _store(value)
            else:
                _url(name, value)
    except WrongSetting as error:
        raise WrongSetting(f"{path}: {error}; delete the file or start the services again") from None
    return Endpoints(**known)


def _from_file(path: Path) -> dict[str, str]:
    """`maypole.toml` holds the same names as the environment, upper or lower case, or a table `[maypole]` with the short ones."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WrongSetting(f"{path}: expected TOML, found {error}") from None
    table: dict[str, Any] = {name.upper(): value for name, value in found.items() if name != "maypole"}
    short = found.get("maypole", {})
    if not isinstance(short, dict):
        raise WrongSetting(f"{path}: expected [maypole] to be a table, found {type(short).__name__}")
    table |= {f"MAYPOLE_{name.upper()}": value for name, value in short.items()}
    unknown = sorted(table.keys() - set(_NAMES))
    if unknown:
        are = "is not a setting" if len(unknown) == 1 else "are no settings"
        raise WrongSetting(f"{path}: {', '.join(unknown)} {are}; expected one of {', '.join(_NAMES)}")
    return {name: str(value) for name, value in table.items()}


def _check_addresses(value: str, name: str) -> None:
    for address in value.split(","):
        host, colon, port = address.strip().rpartition(":")
        if not host or not colon or not port.isdigit() or not 0 < int(port) < 65536:
            raise WrongSetting(f"{name}: expected host:port[,host:port], found {value!r}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise WrongSetting(f"{name}: expected {' or '.join(allowed)}, found {value!r}")
    return value


def _store(value: str) -> str:
    if value != "sqlite" and not value.startswith(("postgresql://", "postgres://")):
        raise WrongSetting(f"MAYPOLE_STORE: expected sqlite or a postgresql:// address, found {value!r}")
    return value


def _url(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port or an address in brackets that is none
        usable = False
    if not usable:
        raise WrongSetting(f"{name}: expected an http:// or https:// address, found {value!r}")
    return value.rstrip("/")


def _read_properties(file: str | None, directory: Path) -> dict[str, str]:
    """librdkafka properties as kcat's -F reads them: `name=value` lines, # comments."""
    if file is None:
        return {}
    path = directory / file
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongSetting(f"MAYPOLE_KAFKA_CONFIG: expected a readable file of librdkafka properties, found {path}: {error}") from None
    properties: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise WrongSetting(f"{path}:{number}: expected name=value, found {text[:80]!r}")
        properties[name.strip()] = value.strip()
    return properties
