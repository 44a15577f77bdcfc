"""What the README shows is run: every block in order, in one folder, as a reader would."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    mark: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        return [line for line in self.text.splitlines() if line and not line.startswith("#")]

    @property
    def exit_code(self) -> int:
        found = re.search(r"# exit code: (\d+)", self.text)
        return int(found[1]) if found else 0


def blocks() -> Iterator[Block]:
    for found in _FENCE.finditer((ROOT / "README.md").read_text()):
        yield Block(found["mark"] or "", found["language"], found["text"])


@pytest.mark.timeout(360)
async def test_every_block_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    ran, said = 0, ""
    async with AsyncExitStack() as stack:
        for block in blocks():
            if block.mark.startswith("file: "):
                path = tmp_path / block.mark.removeprefix("file: ")
                path.parent.mkdir(exist_ok=True)
                path.write_text(block.text)
            elif block.language == "sh" and block.mark == "background":
                process = await start(block.commands[0], tmp_path)
                stack.push_async_callback(stop, process)
                await wait_ready(process, block.commands[0])
                ran += 1
            elif block.language == "sh" and not block.mark.startswith("not run"):
                folder = ROOT if block.mark == "in the checkout" else tmp_path
                said = ""
                for command in block.commands:
                    code, output = await run(command, folder)
                    assert code == block.exit_code, f"{command}\n{output}"
                    assert "DeprecationWarning" not in output, f"{command}\n{output}"
                    said += output
                    ran += 1
            elif block.language == "text" and said:
                for line in block.text.splitlines():
                    pattern = r"[^\n]*".join(re.escape(part.strip()) for part in line.split("…"))
                    assert re.search(pattern, re.sub(r"[ ]+", " ", said)) or re.search(pattern, said), f"{line!r} is not in\n{said}"
                said = ""
    assert ran > 8
    assert len({line for line in (await run(".venv/bin/python ask.py || true", tmp_path))[1].splitlines() if len(line) == 36}) <= 1


def unheeded(found: Block) -> str | None:
    """Why nothing would come of this block; None: it is run, written, compared, or says why not."""
    match found.language:
        case "sh":
            known = found.mark in ("", "background", "in the checkout") or found.mark.startswith("not run")
            return None if known else f"expected a mark that is known, found {found.mark!r}"
        case "text":
            return None if not found.mark else f"expected no mark at what is printed, found {found.mark!r}"
        case _:
            return None if re.fullmatch(r"file: \S+", found.mark) else f"expected a mark `file: NAME`, found {found.mark!r}"


def test_no_block_of_the_readme_is_passed_over_in_silence() -> None:
    everything = list(blocks())
    assert len(everything) == (ROOT / "README.md").read_text().count("\n```") / 2, "a fence that is not understood"
    assert [(block.text[:60], why) for block in everything if (why := unheeded(block)) is not None] == []


@pytest.mark.parametrize(
    ("mark", "language"), [("", "python"), ("file:", "python"), ("", "markdown"), ("in the background", "sh"), ("file: x", "text")]
)
def test_a_block_that_nothing_would_come_of_is_noticed(mark: str, language: str) -> None:
    assert unheeded(Block(mark, language, "")) is not None


def test_blocks_that_are_not_run_name_what_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in blocks():
        if block.language == "sh" and block.mark.startswith("not run"):
            assert len(block.mark) > len("not run: "), "a reason"
            for command in block.commands:
                words = command.split()
                if words[0] == "make":
                    assert words[1] in targets, command
                else:
                    shown = subprocess.run(
                        [str(ROOT / words[0]), words[1], "--help"], capture_output=True, text=True, timeout=20, check=False
                    )
                    assert shown.returncode == 0, command


def test_every_make_target_that_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md"):
        for target in re.findall(r"`make ([a-z-]+)", (ROOT / name).read_text()):
            assert target in targets, f"{name}: make {target}"


async def start(command: str, folder: Path) -> Process:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
    return await asyncio.create_subprocess_exec("bash", "-c", f"exec {command}", cwd=folder, env=environment, stdout=PIPE, stderr=STDOUT)


async def wait_ready(process: Process, command: str) -> None:
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(30):
        while "ready" not in said:
            line = await process.stdout.readline()
            assert line, f"{command} ended: {said}"
            said += line.decode()


async def stop(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()


async def run(command: str, folder: Path) -> tuple[int, str]:
    environment = {**os.environ, "NO_COLOR": "1"}
    process = await asyncio.create_subprocess_exec("bash", "-c", command, cwd=folder, env=environment, stdout=PIPE, stderr=STDOUT)
    output, _ = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode is not None
    return process.returncode, output.decode()


assert shutil.which("bash"), "the README's commands are typed into a shell"
