"""The README, the tutorial and the rotation of keys, followed word for word.

Of a block of the language "console", each line that begins with `$ ` is run, all in one shell, and
what it prints is compared with what the page shows, in which `...` stands for anything.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.environment import need
from tests.support.pages import ENVIRON, PATIENCE, ROOT, Step, block, follow, steps

pytestmark = pytest.mark.process

TUTORIAL = steps("docs/tutorial.md")
ROTATION = steps("docs/rotate.md")
KEYS = block("README.md", "$ envelope keygen")
SERVICE = block("README.md", "$ twistd -n ")
CLIENT = block("README.md", "$ curl ")
EVENTS = block("README.md", "... [envelope.sessions#info]")
RULES = block("README.md", "$ envelope rules")


def test_the_tutorial() -> None:
    probe = subprocess.run(["unshare", "--user", "--map-root-user", "--net", "--mount", "true"],
                           capture_output=True, check=False, timeout=60)
    if probe.returncode:
        need("namespaces of one's own are not allowed here")
    follow(TUTORIAL, ROOT)


def test_rotating_keys(tmp_path: Path) -> None:
    follow(ROTATION, tmp_path)


def test_the_tour_of_the_readme(tmp_path: Path) -> None:
    """The service is in one terminal, its client in another."""
    (service,), (client,) = SERVICE.steps(), CLIENT.steps()
    follow([*KEYS.steps(), *RULES.steps()], tmp_path)
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
            said = "".join(process.stdout.readline() for _ in EVENTS.text.splitlines())
            assert Step("", tuple(EVENTS.text.splitlines())).fits(said), said
        finally:
            process.terminate()


def test_every_page_says_what_is_run() -> None:
    """A command to be copied is no continuation of what was printed before."""
    for step in (*TUTORIAL, *ROTATION):
        assert step.command == step.command.strip()
        assert not any(line.startswith("#") for line in step.shown)
