from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maypole.bus import WrongDeclaration
from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.targets import REFERENCE_AGENTS, load_agent, load_agents
from tests.unit.cli.conftest import Maypole

AGENT = "from maypole.bus import Agent\nfrom maypole.schemas.report import ReportPublished\n"
SUBSCRIBED = '{0} = Agent("{0}")\n@{0}.on(ReportPublished)\nasync def react(event: ReportPublished) -> None: ...\n'


@pytest.fixture(autouse=True)
def _own_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if not name.startswith("maypole."):
            del sys.modules[name]


def written(name: str, text: str) -> str:
    Path(f"{name}.py").write_text(text)
    return f"{name}.py"


def test_the_reference_agents_are_modules_with_one_agent_each() -> None:
    assert [agent.name for agent in load_agents(REFERENCE_AGENTS)] == ["research", "analysis", "report", "delivery"]


def test_a_file_with_one_agent_needs_no_name() -> None:
    assert load_agent(written("lone_agent", AGENT + SUBSCRIBED.format("lone"))).name == "lone"


def test_a_file_can_import_its_neighbour() -> None:
    written("neighbour_of_agent", "X = 1\n")
    assert load_agent(written("has_neighbour", "import neighbour_of_agent\n" + AGENT + SUBSCRIBED.format("lone"))).name == "lone"


def test_one_of_several_agents_is_chosen_by_name_and_otherwise_asked_for() -> None:
    file = written("two_of_them", AGENT + SUBSCRIBED.format("one") + SUBSCRIBED.format("two"))
    assert load_agent(f"{file}:two").name == "two"
    with pytest.raises(Problem, match="expected one agent, found one, two") as asked:
        load_agent(file)
    assert asked.value.code is ExitCode.USAGE
    assert f"maypole run {file}:one {file}:two" in (asked.value.hint or "")
    with pytest.raises(Problem, match="'three', found one, two") as unknown:
        load_agent(f"{file}:three")
    assert unknown.value.code is ExitCode.NOT_FOUND


@pytest.mark.parametrize("target", ["nowhere.py", "no.such.module", "folder/"])
def test_a_target_that_is_not_there_is_not_found(target: str) -> None:
    Path("folder").mkdir()
    with pytest.raises(Problem) as missing:
        load_agent(target)
    assert missing.value.code is ExitCode.NOT_FOUND
    assert missing.value.hint is not None


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("def broken(:\n", "faulty_agent.py:1: SyntaxError"),
        ("x = 1\ny = unknown\n", "faulty_agent.py:2: NameError: name 'unknown' is not defined\n  y = unknown"),
        ("import not_there_at_all\n", "faulty_agent.py:1: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "faulty_agent.py:1: SystemExit"),
        (
            "from maypole.bus import Event\nclass Made(Event, type='a.b'):\n    x: list[str]\n",
            r"faulty_agent.py:2: UnsafeSchema: Made.x: expected tuple\[X, ...\]",
        ),
        (
            AGENT + 'a = Agent("a")\n@a.on(ReportPublished)\nasync def react(event): ...\n',
            "faulty_agent.py:4: WrongDeclaration: agent a, react",
        ),
    ],
)
def test_an_error_in_the_file_is_told_with_its_line(text: str, where: str) -> None:
    with pytest.raises(Problem, match=where) as broken:
        load_agent(written("faulty_agent", text))
    assert broken.value.code is ExitCode.USAGE


def test_an_agent_that_subscribes_to_nothing_is_refused_before_a_broker_is_needed() -> None:
    with pytest.raises(WrongDeclaration, match="subscribes to nothing"):
        load_agents([written("lonely_agent", 'from maypole.bus import Agent\nlonely = Agent("lonely")\n')])


def test_two_agents_of_one_name_are_refused() -> None:
    first, second = (written(name, AGENT + SUBSCRIBED.format("same")) for name in ("first_same", "second_same"))
    with pytest.raises(Problem, match="both declare an agent called 'same'"):
        load_agents([first, second])


def test_a_file_named_like_a_module_of_python_is_refused() -> None:
    with pytest.raises(Problem, match="name of a module that Python already uses"):
        load_agent(written("types", AGENT))


@pytest.mark.parametrize("command", ["dev", "run"])
def test_a_file_with_several_agents_leads_to_the_same_command_with_each(maypole: Maypole, command: str) -> None:
    Path("several.py").write_text("from maypole.bus import Agent\none, two = Agent('one'), Agent('two')\n")
    ran = maypole(command, "several.py")
    assert ran.code == 2 and f" {command} several.py:one several.py:two   (or only some of them)" in ran.err
