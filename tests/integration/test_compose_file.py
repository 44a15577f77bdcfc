"""docker-compose.yml read by the library that docker compose is made of; its containers do not run here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from deploy.local.cache import cached
from deploy.local.faults import NotHere
from deploy.local.go import build_go
from maypole.services.cli.targets import REFERENCE_AGENTS
from tests.support.services import missing

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "deploy" / "compose_check"


@pytest.fixture(scope="module")
def check() -> Path:
    def build(folder: Path) -> None:
        build_go(CHECK, ".", folder / "compose_check", 300)

    recipe = "".join((CHECK / name).read_text() for name in ("go.mod", "go.sum", "main.go"))
    try:
        return cached("compose_check", recipe, build, "building the check of docker-compose.yml (once)") / "compose_check"
    except NotHere as reason:
        missing("the Compose library", str(reason))


def test_the_compose_file_fits_its_specification(check: Path) -> None:
    answer = subprocess.run([check, ROOT / "docker-compose.yml"], capture_output=True, text=True, check=False)
    assert answer.stderr == ""
    assert set(json.loads(answer.stdout)["services"]) >= {
        "kafka",
        "registry",
        "jaeger",
        "topics",
        "research",
        "analysis",
        "report",
        "delivery",
        "coordinator",
        "postgres",
    }


def test_every_topic_of_the_agents_is_made_before_the_first_of_them_starts(check: Path) -> None:
    answer = subprocess.run([check, ROOT / "docker-compose.yml"], capture_output=True, text=True, check=True)
    services = json.loads(answer.stdout)["services"]
    run = {service["command"][1] for service in services.values() if (service.get("command") or [""])[0] == "run"}
    assert run == set(REFERENCE_AGENTS)
    assert services["topics"]["command"] == ["topics", "apply", *REFERENCE_AGENTS]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("services: {kafka: {image: a, portz: []}}", "additional properties 'portz' not allowed"),
        ("services: {kafka: {image: a, depends_on: [registry]}}", "depends on undefined service"),
    ],
    ids=["unknown key", "unknown service"],
)
def test_the_check_refuses_what_docker_compose_refuses(check: Path, tmp_path: Path, wrong: str, said: str) -> None:
    path = tmp_path / "docker-compose.yml"
    path.write_text(wrong)
    answer = subprocess.run([check, path], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert said in answer.stderr
