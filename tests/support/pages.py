"""The blocks of code on the pages, and a shell that follows their steps as a reader would.

A test takes each block that it runs with `block` when its module is imported, so that
tests/test_blocks.py knows which blocks are run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
# reference.md is written from the code, and compared with it.
PAGES = sorted([
    ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"),
])
PAGES.remove(ROOT / "docs/reference.md")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MARK = "~~~ {} ~~~"
PATIENCE = 120.0  # seconds
ENVIRON = {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin", "HOME": "/",
}
# What is another one each time: a moment, a session's id.
_VARYING = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d|\d{8}T\d{6}|\b[0-9a-f]{12}\b"
)


class Block(NamedTuple):
    """A block of code on a page."""

    page: str
    language: str
    text: str

    @property
    def first(self) -> str:
        """Its first line, which with the page says which one it is."""
        return self.text.partition("\n")[0]

    def steps(self) -> list[Step]:
        """The commands of a `console` block, in which they begin with the prompt `$ ` or `# `.

        `#` is the prompt, root's, where the block begins with it, and else part of an output.
        """
        found = []
        for part in re.split(rf"^[{self.text[0]}] ", self.text, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            while command.endswith("\\"):
                line, _, shown = shown.partition("\n")
                command = f"{command}\n{line}"
            found.append(Step(command, tuple(shown.splitlines())))
        return found


@dataclass(frozen=True)
class Step:
    """A command, and what a page says that it prints."""

    command: str
    shown: tuple[str, ...]

    @property
    def pattern(self) -> str:
        """What fits what it should print; `...` stands for anything."""
        parts = "\n".join(self.shown).split("...")
        return ".*".join(
            "".join(re.escape(rest) + varying for rest, varying in _pieces(part)) for part in parts
        )

    def fits(self, printed: str) -> bool:
        """Whether it printed that."""
        return re.fullmatch(self.pattern, printed.strip("\n"), re.DOTALL) is not None


def _pieces(text: str) -> list[tuple[str, str]]:
    """The text between varying parts, each with a pattern of the part that follows it."""
    found, end = [], 0
    for match in _VARYING.finditer(text):
        same_form = re.sub(r"[0-9a-f]{12}", "[0-9a-f]{12}", match[0])
        if same_form == match[0]:
            same_form = re.sub(r"\d", r"\\d", match[0])
        found.append((text[end:match.start()], same_form))
        end = match.end()
    return [*found, (text[end:], "")]


def blocks(page: Path) -> list[Block]:
    """All blocks of a page."""
    name = str(page.relative_to(ROOT))
    return [Block(name, *found) for found in FENCED.findall(page.read_text())]


TAKEN: set[Block] = set()


def block(page: str, beginning: str) -> Block:
    """The one block of `page` that begins so; from now on it counts as run."""
    (found,) = [each for each in blocks(ROOT / page) if each.text.startswith(beginning)]
    TAKEN.add(found)
    return found


def all_of(page: str, language: str) -> list[str]:
    """The texts of all blocks of a page in this language; from now on these count as run."""
    found = [each for each in blocks(ROOT / page) if each.language == language]
    TAKEN.update(found)
    return [each.text for each in found]


def steps(page: str) -> list[Step]:
    """The steps of all `console` blocks of a page; from now on these count as run."""
    return [step for text in all_of(page, "console")
            for step in Block(page, "console", text).steps()]


def follow(
    todo: Sequence[Step], folder: Path, *, shell: Sequence[str] = ("bash",),
    environ: Mapping[str, str] = ENVIRON,
) -> list[str]:
    """Do these steps, all in one shell, and compare; what each has printed."""
    assert todo
    lines = []
    for number, step in enumerate(todo):
        lines += [step.command, f"printf '{MARK}\\n' {number}".replace("{}", "%d")]
    # As on a terminal, what follows is the next shell's.
    done = subprocess.run(
        shell, input="\n".join([*lines, ""]), cwd=folder, text=True, timeout=PATIENCE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, env=environ)
    rest, printed = done.stdout, []
    for number, step in enumerate(todo):
        output, mark, rest = rest.partition(MARK.format(number) + "\n")
        assert mark, f"{step.command}: {done.stdout[-2000:]}"
        assert step.fits(output), f"$ {step.command}\n{output}"
        printed.append(output)
    return printed
