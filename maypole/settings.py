"""Settings, read once at start. The command line wins over the environment, which wins over `maypole.toml`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, cast
from urllib.parse import urlsplit

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
_FILE: Final = "maypole.toml"
ENDPOINTS_FILE: Final = "endpoints.json"


class WrongSetting(ValueError):
    """A setting cannot be used. Names it, what was expected, what was found and where."""


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
    """`kafka` is None where nobody said where a broker is; `kafka_source` says who did."""

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
    """Read all sources once. Raises `WrongSetting` for the first setting that cannot be used."""
    values = {**_from_file(directory / _FILE), **{name: environment[name] for name in _NAMES if environment.get(name)}, **(overrides or {})}
    home = Path(values.get("MAYPOLE_HOME", ".maypole"))
    if not home.is_absolute():
        home = directory / home
    if home.exists() and not home.is_dir():
        raise WrongSetting(f"MAYPOLE_HOME: expected a folder, found a file at {home}")
    endpoints = read_endpoints(home)
    kafka = values.get("MAYPOLE_KAFKA")
    if kafka is not None:
        _check_addresses(kafka)
    corpus = values.get("MAYPOLE_CORPUS")
    return Settings(
        home=home,
        kafka=kafka or endpoints.kafka,
        kafka_source="MAYPOLE_KAFKA" if kafka else str(home / ENDPOINTS_FILE) if endpoints.kafka else "nowhere",
        kafka_config=_read_properties(values.get("MAYPOLE_KAFKA_CONFIG"), directory),
        store=_store(values.get("MAYPOLE_STORE") or endpoints.store),
        transport=cast(
            TransportName, _one_of("MAYPOLE_TRANSPORT", values.get("MAYPOLE_TRANSPORT", "confluent"), ("confluent", "aiokafka"))
        ),
        registry_url=_url("SCHEMA_REGISTRY_URL", values.get("SCHEMA_REGISTRY_URL")) or endpoints.registry,
        tracing=cast(TracingName, _one_of("MAYPOLE_TRACING", values.get("MAYPOLE_TRACING", "fast"), ("fast", "sdk", "off"))),
        otlp_endpoint=endpoints.otlp,
        jaeger_url=_url("MAYPOLE_JAEGER_URL", values.get("MAYPOLE_JAEGER_URL")) or endpoints.jaeger,
        corpus=None if corpus is None else directory / corpus,
    )


def read_endpoints(home: Path) -> Endpoints:
    path = home / ENDPOINTS_FILE
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
        raise WrongSetting(f"{path}: {unknown[0]} is not a setting; expected one of {', '.join(_NAMES)}")
    return {name: str(value) for name, value in table.items()}


def _check_addresses(value: str, name: str = "MAYPOLE_KAFKA") -> None:
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
