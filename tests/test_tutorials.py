"""The README, the tutorial and how-to pages, followed word for word.

Of a block of the language "console", each line that begins with `$ ` is run, all in one shell, and
what it prints is compared with what the page shows, in which `...` stands for anything.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from envelope.commands import COMMANDS
from envelope.config import OPTIONS
from tests.support.environment import need

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
MARK = "~~~ {} ~~~"
PATIENCE = 120.0
ENVIRON = {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}:/usr/sbin:/sbin", "HOME": "/"}


@dataclass(frozen=True)
class Step:
    """A command, and what a page says that it prints."""

    command: str
    shown: tuple[str, ...]

    @property
    def pattern(self) -> str:
        """What fits what it should print."""
        return ".*".join(re.escape(part) for part in "\n".join(self.shown).split("..."))

    def fits(self, printed: str) -> bool:
        """Whether it printed that."""
        return re.fullmatch(self.pattern, printed.strip("\n"), re.DOTALL) is not None


def steps(page: str) -> list[Step]:
    """The steps of a page."""
    found = []
    for block in BLOCK.findall((ROOT / page).read_text()):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            while command.endswith("\\"):
                line, _, shown = shown.partition("\n")
                command = f"{command}\n{line}"
            found.append(Step(command, tuple(shown.splitlines())))
    return found


def follow(todo: list[Step], folder: Path) -> None:
    """Do these steps, in one shell, and compare."""
    assert todo
    lines = []
    for number, step in enumerate(todo):
        lines += [step.command, f"printf '{MARK}\\n' {number}".replace("{}", "%d")]
    # As on a terminal, what follows is the next shell's.
    done = subprocess.run(
        ["bash"], input="\n".join([*lines, ""]), cwd=folder, text=True, timeout=PATIENCE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        env=ENVIRON)
    rest = done.stdout
    for number, step in enumerate(todo):
        printed, mark, rest = rest.partition(MARK.format(number) + "\n")
        assert mark, f"{step.command}: {done.stdout[-2000:]}"
        assert step.fits(printed), f"$ {step.command}\n{printed}"


def test_the_tutorial() -> None:
    probe = subprocess.run(["unshare", "--user", "--map-root-user", "--net", "--mount", "true"],
                           capture_output=True, check=False, timeout=60)
    if probe.returncode:
        need("namespaces of one's own are not allowed here")
    follow(steps("docs/tutorial.md"), ROOT)


def test_rotating_keys(tmp_path: Path) -> None:
    follow(steps("docs/rotate.md"), tmp_path)


def test_the_tour_of_the_readme(tmp_path: Path) -> None:
    """The service is in one terminal, its client in another."""
    todo = steps("README.md")
    (service,) = [step for step in todo if step.command.startswith("twistd -n ")]
    (client,) = [step for step in todo if step.command.startswith("curl ")]
    follow([step for step in todo if step not in (service, client)], tmp_path)
    with subprocess.Popen(shlex.split(service.command), cwd=tmp_path, text=True, env=ENVIRON,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            assert process.stdout is not None
            log = ""
            while not log.endswith("ready\n"):
                line = process.stdout.readline()
                assert line, log
                log += line
            assert re.search(service.pattern, log, re.DOTALL), log
            done = subprocess.run(["bash", "-c", client.command], capture_output=True,
                                  timeout=PATIENCE, check=False, env=ENVIRON)
            shown = re.match(client.pattern, done.stdout.decode(errors="replace").replace("\r", ""))
            assert shown is not None, done.stdout
            assert b"deadline" in done.stdout
        finally:
            process.terminate()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_shell_can_be_read_and_name_what_there_is(page: Path) -> None:
    """Also those that are not run, because they need a cluster or change the machine."""
    for language, block in FENCED.findall(page.read_text()):
        if language == "json":
            json.loads(block)
        if language not in ("sh", "console"):
            continue
        # `#` is root's prompt where a block begins with it, and else part of what is printed.
        commands = re.findall(rf"^[{block[0]}] ((?:.*\\\n)*.*)", block, re.MULTILINE)
        lines = block if language == "sh" else "\n".join(commands)
        done = subprocess.run(["bash", "-n"], input=lines, text=True, capture_output=True,
                              check=False, timeout=60)
        assert (done.stderr, done.returncode) == ("", 0), lines
        for name in re.findall(r"(?:^|\$ |&& |-- )envelope ([a-z]+)\b", lines, re.MULTILINE):
            assert name in COMMANDS, name
        joined = lines.replace("\\\n", " ")
        for line in joined.splitlines():
            if re.match(r"(?:.*/)?twistd .*envelope ", line):
                given = re.findall(r" --([a-z0-9-]+)", line.partition("envelope ")[2])
                assert set(given) <= {option.name for option in OPTIONS} | {"help"}, line


def test_every_page_says_what_is_run() -> None:
    """A command to be copied is no continuation of what was printed before."""
    for page in ("docs/tutorial.md", "docs/rotate.md"):
        for step in steps(page):
            assert step.command == step.command.strip()
            assert not any(line.startswith("#") for line in step.shown)
