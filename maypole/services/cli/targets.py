"""TARGET: a module (`maypole.services.research`) or a file (`agents/translate.py`), either with `:name`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Final

import click

from maypole.bus import Agent
from maypole.services.cli.problems import ExitCode, Problem

REFERENCE_AGENTS: Final = ("maypole.services.research", "maypole.services.analysis", "maypole.services.report", "maypole.services.delivery")


def load_agents(targets: Iterable[str]) -> list[Agent]:
    """The agents in the order named. Raises `Problem` naming the target, the file and the line."""
    loaded: dict[str, tuple[str, Agent]] = {}
    for target in targets:
        agent = load_agent(target)
        agent.declaration()  # refuses one that subscribes to nothing, before anybody looks for a broker
        agent.event_classes()
        other, known = loaded.setdefault(agent.name, (target, agent))
        if other != target and known is not agent:
            raise Problem(f"{other} and {target} both declare an agent called {agent.name!r}; expected names that differ", ExitCode.USAGE)
    return [agent for _, agent in loaded.values()]


def load_agent(target: str) -> Agent:
    where, _, wanted = target.partition(":")
    module = _load_file(Path(where)) if _is_file(where) else _load_module(where)
    return _chosen(module, where, wanted)


def _is_file(where: str) -> bool:
    """Whatever cannot be a module's name is taken for a file's."""
    return where.endswith(".py") or not all(part.isidentifier() for part in where.split("."))


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise Problem(f"expected a Python file with an agent at {path}, found {found}", ExitCode.NOT_FOUND, _new_agent_hint())
    path = path.resolve()
    # The same file under its importable name, so that what it imports and what imports it see one module.
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise Problem(f"expected a Python file, whose name ends with .py, found {_short(str(path))}", ExitCode.USAGE)
    loaded = sys.modules.get(path.stem)
    if path.stem in sys.stdlib_module_names or (loaded is not None and loaded.__file__ != str(path)):
        raise Problem(f"{path} has the name of a module that Python already uses; expected another file name", ExitCode.USAGE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the file does wrong is the user's to read, with file and line
        sys.modules.pop(path.stem, None)
        raise _broken(path, error) from error
    return module


def _load_module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            file = f"{name.replace('.', '/')}.py"
            hint = _again(file) if Path(file).is_file() else _new_agent_hint()
            message = f"expected a module called {name}, found none called {error.name}; a file is named by its path"
            raise Problem(message, ExitCode.NOT_FOUND, hint) from None
        raise _broken(Path(name), error) from error
    except (Exception, SystemExit) as error:  # as above
        raise _broken(Path(name), error) from error


def _broken(path: Path, error: BaseException) -> Problem:
    """The error as `file:line: Type: message`; the line is the last one outside of Maypole and Python's own import."""
    if isinstance(error, SyntaxError):
        return Problem(f"{_short(error.filename or str(path))}:{error.lineno or 1}: {type(error).__name__}: {error.msg}", ExitCode.USAGE)
    ours = Path(__file__).parents[2]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and not Path(frame.filename).is_relative_to(ours) and "site-packages" not in frame.filename
        and not Path(frame.filename).is_relative_to(Path(importlib.__file__ or "").parent)
    ]  # fmt: skip
    where = f"{_short(frames[-1].filename)}:{frames[-1].lineno}" if frames else str(path)
    source = f"\n  {frames[-1].line}" if frames and frames[-1].line else ""
    return Problem(f"{where}: {type(error).__name__}: {error}{source}", ExitCode.USAGE)


def _chosen(module: ModuleType, where: str, wanted: str) -> Agent:
    agents = {name: value for name, value in vars(module).items() if isinstance(value, Agent)}
    if wanted:
        for name, agent in agents.items():
            if wanted in (name, agent.name):
                return agent
        raise Problem(f"{where}: expected an agent called {wanted!r}, found {_listed(agents) or 'no agent'}", ExitCode.NOT_FOUND)
    distinct = list({id(agent): agent for agent in agents.values()}.values())
    if len(distinct) == 1:
        return distinct[0]
    if not distinct:
        message = f"{where}: expected an agent, found none; an agent is declared as `name = Agent('name')`"
        raise Problem(message, ExitCode.NOT_FOUND, _new_agent_hint())
    each = " ".join(f"{where}:{name}" for name in agents)
    raise Problem(f"{where}: expected one agent, found {_listed(agents)}", ExitCode.USAGE, f"{_again(each)}   (or only some of them)")


def _again(targets: str) -> str:
    """The command that was typed, with other targets."""
    context = click.get_current_context(silent=True)
    return f"{'maypole run' if context is None else context.command_path} {targets}"


def _listed(agents: Iterable[str]) -> str:
    return ", ".join(agents)


def _short(file: str) -> str:
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file


def _new_agent_hint() -> str:
    return "maypole new agent translate --on report.published --emits report.translated"
