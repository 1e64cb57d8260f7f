"""Every block of code on the pages is run by a test, or named here with the reason why not."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from envelope.commands import COMMANDS
from envelope.config import OPTIONS
from tests.support.pages import PAGES, ROOT, TAKEN, Block, blocks

# Where blocks are run.
MODULES = (
    "tests.test_tutorials", "tests.test_howtos", "tests.test_dist", "tests.test_log_events",
    "tests.client.test_documented", "tests.end_to_end.test_browser",
    "tests.end_to_end.test_examples", "tests.end_to_end.test_howtos",
)
DRAWING = "a drawing"
DEMO = "tests/lab/test_demo.py has the demo"
# By page and beginning.
NOT_RUN = {
    ("README.md", "make demo"): DEMO,
    ("README.md", "6. With a valid token"): DEMO,
    ("README.md", "                     the guarded host"): DRAWING,
    ("docs/architecture.md", "                    twistd"): DRAWING,
    ("docs/architecture.md", " client\n"): DRAWING,
    ("docs/architecture.md", " an end"): DRAWING,
    ("docs/architecture.md", " start: listen"): DRAWING,
    ("docs/options.md", "twistd [twistd's"): "a synopsis",
    ("docs/install.md", "make dist"): "tests/test_dist.py runs tools/dist, which it calls",
    ("docs/limits.md", "tools/in-namespace"): "a measurement, for a machine that does nothing else",
    ("docs/install.md", "MAINTAINER="): "two minutes, and a fresh Debian; tools/release runs it",
}
LANGUAGES = {"", "console", "ini", "js", "json", "nginx", "python", "sh", "yaml"}
EVERY_BLOCK = [each for page in PAGES for each in blocks(page)]


def not_run() -> list[Block]:
    """The blocks that no test takes."""
    for module in MODULES:
        importlib.import_module(module)
    return [each for each in EVERY_BLOCK if each not in TAKEN]


def test_every_block_is_run_or_says_why_not() -> None:
    left = not_run()
    for page, beginning in NOT_RUN:
        assert [each for each in left if each.page == page and each.text.startswith(beginning)], (
            f"{page}: the block {beginning!r} is run, or gone")
    unknown = [(each.page, each.first) for each in left if not any(
        each.page == page and each.text.startswith(beginning) for page, beginning in NOT_RUN)]
    assert unknown == []


def test_what_can_be_run_is_a_block() -> None:
    """Blocks that are only indented have no language, and no test finds them."""
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        assert re.findall(r"^(?!\s*[-*\d]).*\n\n {4,}(\S.*)", prose, re.MULTILINE) == [], page
    assert {each.language for each in EVERY_BLOCK} <= LANGUAGES


@pytest.mark.process
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_shell_can_be_read_and_name_what_there_is(page: Path) -> None:
    """Also those that are not run."""
    for each in blocks(page):
        if each.language == "json":
            json.loads(each.text)
        if each.language not in ("sh", "console"):
            continue
        lines = each.text if each.language == "sh" else "\n".join(
            step.command for step in each.steps())
        done = subprocess.run(["bash", "-n"], input=lines, text=True, capture_output=True,
                              check=False, timeout=60)
        assert (done.stderr, done.returncode) == ("", 0), lines
        for name in re.findall(r"(?:^|\$ |&& |-- )envelope ([a-z]+)\b", lines, re.MULTILINE):
            assert name in COMMANDS, name
        for line in lines.replace("\\\n", " ").splitlines():
            if re.match(r"(?:.*/)?twistd .*envelope ", line):
                given = re.findall(r" --([a-z0-9-]+)", line.partition("envelope ")[2])
                assert set(given) <= {option.name for option in OPTIONS} | {"help"}, line
