"""The files around the code: lock, signposts, compose file, image, make targets."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.compose import PUBLISHED

ROOT = Path(__file__).parents[2]
ROOMS = ("bus", "schemas", "services", "tracing")
LOCK = ROOT / "requirements.lock"
IMAGE_LOCK = ROOT / "deploy" / "images" / "requirements.lock"
AGENTS = ("research", "analysis", "report", "delivery")


def compose() -> dict[str, Any]:
    project: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return project


def locked(path: Path) -> dict[str, frozenset[str]]:
    """Each requirement of a lock, as `name==version`, with its hashes."""
    blocks = re.split(r"\n(?=[a-z0-9])", path.read_text().strip())
    return {block.split()[0]: frozenset(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block)) for block in blocks}


@pytest.mark.parametrize("path", [LOCK, IMAGE_LOCK], ids=["all", "image"])
def test_every_locked_requirement_is_pinned_with_hashes_and_without_an_address(path: Path) -> None:
    assert not re.findall(r"https?://|--index-url|--extra-index-url|--find-links", path.read_text())
    assert [name for name, hashes in locked(path).items() if "==" not in name or not hashes] == []


def test_the_image_installs_a_part_of_what_was_tested() -> None:
    tested = locked(LOCK)
    assert {name: hashes for name, hashes in locked(IMAGE_LOCK).items() if tested.get(name) != hashes} == {}
    assert not [name for name in locked(IMAGE_LOCK) if name.startswith(("pytest", "mypy", "faststream"))]


def test_every_dependency_says_why_it_is_there() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    declared = tomllib.loads("\n".join(lines))["project"]["dependencies"]
    silent = [name for name in declared if not any(f'"{name}"' in line and "#" in line.partition(f'"{name}"')[2] for line in lines)]
    assert silent == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_at_the_top_is_a_relative_link_into_the_package(room: str) -> None:
    assert (ROOT / room).is_symlink()
    assert (ROOT / room).readlink() == Path("maypole") / room


def test_every_test_that_the_architecture_names_exists() -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", (ROOT / "ARCHITECTURE.md").read_text()))
    there = {name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text())}
    assert len(named) > 20 and named - there == set()


def test_nothing_imports_through_the_links() -> None:
    through = re.compile(rf"^\s*(?:from|import) (?:{'|'.join(ROOMS)})\b", re.MULTILINE)
    files = [path for folder in ("maypole", "deploy", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert [str(path.relative_to(ROOT)) for path in files if through.search(path.read_text())] == []


def test_make_alone_lists_its_targets() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = set(re.findall(r"^  make ([a-z-]+)", listed, re.MULTILINE))
    assert named >= {"demo", "test", "check", "bench", "torture", "schemas", "up", "down", "local", "local-down"}


def test_every_published_port_is_open_on_loopback_only() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    assert len(ports) == len(set(ports))


def test_endpoints_of_the_containers_are_ports_that_they_publish() -> None:
    published = {port.split(":")[1] for service in compose()["services"].values() for port in service.get("ports", [])}
    told = {str(address).rpartition(":")[2] for address in (PUBLISHED.kafka, PUBLISHED.registry, PUBLISHED.otlp, PUBLISHED.jaeger)}
    assert told <= published


def test_agents_start_after_the_topics_and_the_topics_after_a_healthy_broker() -> None:
    services = compose()["services"]
    assert {services[name]["depends_on"]["topics"]["condition"] for name in AGENTS} == {"service_completed_successfully"}
    assert services["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"
    assert services["topics"]["restart"] == "no"
    unprobed = [name for name, service in services.items() if "test" not in service.get("healthcheck", {})]
    assert sorted(unprobed) == ["jaeger", "topics"]


def test_no_health_check_needs_a_program_that_its_image_lacks() -> None:
    probes = [service["healthcheck"]["test"] for service in compose()["services"].values() if "test" in service.get("healthcheck", {})]
    assert [probe for probe in probes if probe[0] != "CMD" or probe[1] in {"curl", "wget", "nc", "bash", "sh"}] == []


def test_every_image_is_pinned_to_a_version() -> None:
    images = [service["image"] for service in compose()["services"].values()]
    assert [image for image in images if ":" not in image or image.endswith(":latest")] == []


def test_the_image_runs_as_somebody_else_than_root_and_copies_what_the_context_holds() -> None:
    lines = (ROOT / "deploy" / "images" / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001"]
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1] if word != "."]
    assert set(copied) <= admitted
    assert [path for path in admitted if not (ROOT / path).exists()] == []
