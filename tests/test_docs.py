"""The pages hold together: links lead somewhere, and a page that promises a whole list has it."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from envelope.config import OPTIONS
from envelope.front import handshake
from envelope.front.eviction import DropReason
from envelope.metrics import new_registry
from envelope.protocol import End
from envelope.sessions import answers
from envelope.sessions.answers import Refusal, TokenReason, TokenRefusal, unauthorised

ROOT = Path(__file__).parent.parent
PAGES = sorted([
    *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"),
])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
# A path of this repository as pages write it, with or without a test's name behind it.
PATH = re.compile(
    r"`((?:envelope|tests|benchmarks|tools|deploy|docs|examples)/[a-z0-9_./-]+)(?:::\w+)?`"
)
# Options of twistd, Docker and others, as pages quote them.
OTHERS_OPTIONS = {
    "ctdir", "datestop", "env-file", "experimental-websocket", "health-cmd", "help", "logfile",
    "logger", "no-healthcheck", "packager", "security-opt", "stop-timeout", "syslog", "tmpfs",
    "user",
}
OTHERS_COMMANDS = (
    "-p ", "docker", "env ", "firewall-cmd", "ip6tables", "iptables", "journalctl", "kubectl",
    "make ", "pip ", "python", "setpriv", "tools/",
)
METRIC = re.compile(r"(?:envelope|controller)(?:_[a-z]+)+")


def prose(page: Path) -> str:
    """A page without its blocks of code, in which nothing is a link or a heading."""
    return FENCED.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings can be linked to, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(prose(page))
    }


def rows(page: str) -> list[list[str]]:
    """The cells of every table row of a page."""
    lines = (ROOT / page).read_text().splitlines()
    return [line.strip("|").split(" | ") for line in lines if line.startswith("| `")]


def table_rows(page: str) -> list[list[str]]:
    """The cells of every row of a page's tables."""
    lines = (ROOT / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")]
            for line in lines if line.startswith("| ")]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"],
    ids=[name for name in NAMES if name != "CHANGELOG.md"],
)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    for path in PATH.findall(prose(page)):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"],
    ids=[name for name in NAMES if name != "CHANGELOG.md"],
)
def test_every_option_and_metric_that_a_page_names_exists(page: Path) -> None:
    """Those of commands, too, which the reference lists from the code."""
    reference = (ROOT / "docs/reference.md").read_text()
    ours = set(re.findall(r"`--([a-z0-9-]+)=?`", reference))
    text = prose(page)
    for quoted in re.findall(r"`([^`]+)`", text):
        if not quoted.startswith(OTHERS_COMMANDS):
            for name in re.findall(r"(?:^|\s|\[)--([a-z][a-z0-9-]+)", quoted):
                assert name in ours | OTHERS_OPTIONS, quoted
    assert set(re.findall(rf"`({METRIC.pattern})", text)) <= metrics_listed()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("folder", [ROOT / "docs", ROOT / "docs" / "decisions"], ids=str)
def test_an_index_lists_every_page_of_its_folder(folder: Path) -> None:
    listed = set(LINK.findall((folder / "README.md").read_text()))
    assert {page.name for page in folder.glob("*.md")} - {"README.md"} <= listed


def test_every_option_is_listed_with_its_default() -> None:
    listed = {
        name: cells[1] for cells in rows("docs/options.md")
        for name in re.findall(r"`--([\w-]+)`", cells[0])
    }
    for option in OPTIONS:
        assert option.name in listed
        if option.default:
            assert f"`{option.default}`" in listed[option.name], option.name
    headings = HEADING.findall(prose(ROOT / "docs/options.md"))
    groups = [option.heading for option in OPTIONS if option.heading]
    assert [heading for heading in headings if heading in groups] == groups
    assert listed.keys() == {option.name for option in OPTIONS}


def metrics_listed() -> set[str]:
    """The names on the page of metrics."""
    return {name for cells in rows("docs/metrics.md") for name in METRIC.findall(cells[0])}


def test_every_metric_is_listed() -> None:
    listed = metrics_listed()
    defined = {
        node.value
        for module in (ROOT / "envelope").rglob("metrics.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and METRIC.fullmatch(node.value)
    }
    assert len(defined) > 15
    assert listed == defined


def refusals() -> list[Refusal]:
    """Every answer but 101 and those for tokens, which share a text."""
    return [value for module in (handshake, answers) for value in vars(module).values()
            if isinstance(value, Refusal)]


def test_the_way_from_what_a_client_saw_to_its_cause_has_every_answer() -> None:
    lines = [" ".join(cells) for cells in table_rows("docs/troubleshooting.md")]
    assert len(refusals()) > 10
    for refusal in refusals():
        text = refusal.text.partition(". ")[0]
        (line,) = [line for line in lines if f"{refusal.status} {text}" in line]
        assert not refusal.counted or f"`{refusal.counted}`" in line, text
    for reason in TokenReason:
        text = unauthorised(TokenRefusal(reason)).text.partition(":")[0].rstrip(".")
        assert any(f"401 {text}" in line for line in lines), text
    first = " ".join(cells[0] for cells in table_rows("docs/troubleshooting.md"))
    for name in (*TokenReason, *DropReason):
        assert f"`{name}`" in first, name


def test_the_way_from_what_a_client_saw_to_its_cause_has_every_close_code() -> None:
    named = {" ".join(filter(None, (str(end.code), end.reason and f"`{end.reason}`")))
             for end in End if end.code}
    for page in ("docs/troubleshooting.md", "docs/answers.md"):
        assert named <= {cells[0] for cells in table_rows(page)}, page


def test_answers_has_every_status() -> None:
    listed = " ".join(cells[1] for cells in table_rows("docs/answers.md"))
    for status in {101, 401, *(refusal.status for refusal in refusals())}:
        assert str(status) in listed, status


def test_every_value_of_a_label_is_listed() -> None:
    listed = {
        name.removesuffix("_total"): cells[2] for cells in rows("docs/metrics.md")
        for name in METRIC.findall(cells[0])
    }
    registry = new_registry()
    for path in (ROOT / "envelope").glob("*/metrics.py"):
        module = import_module(f"envelope.{path.parent.name}.metrics")
        for name, kind in vars(module).items():
            if name.endswith("Metrics") and kind.__module__ == module.__name__:
                kind(registry)
    for family in registry.collect():
        for sample in family.samples:
            for label, value in sample.labels.items():
                own = family.name.startswith(("envelope_", "controller_"))
                if own and label not in ("le", "path", "version"):
                    assert f"`{label}`" in listed[family.name]
                    assert f"`{value}`" in listed[family.name]
