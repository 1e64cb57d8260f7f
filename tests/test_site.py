"""The site that `make docs` makes: complete, with a search that finds, and without a dead link."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.environment import need

ROOT = Path(__file__).parent.parent
SITE = "tools/site"

pytestmark = pytest.mark.process


@dataclass
class Page(HTMLParser):
    """The names that can be linked to in a page, and what it links to or loads."""

    path: Path
    names: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        given = {name: value for name, value in attrs if value}
        self.names |= {given[name] for name in ("id", "name") if name in given}
        self.links += [given[name] for name in ("href", "src") if name in given]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, SITE, folder], cwd=ROOT, capture_output=True, text=True,
                          check=False, timeout=300)
    if done.returncode == 2 and "--prepare" in done.stderr:
        need(done.stderr.strip())
    assert (done.stderr, done.returncode) == ("", 0)
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """The site's pages by their paths."""
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_is_on_the_site(site: Path, pages: dict[Path, Page]) -> None:
    for source in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"),
                   *(ROOT / "examples").rglob("*.md")):
        assert (site / source.relative_to(ROOT)).with_suffix(".html") in pages


def test_no_link_is_dead(site: Path, pages: dict[Path, Page]) -> None:
    """Those inside of the site, with the part of a page that they name."""
    checked = 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), (path.relative_to(site), link)
            assert target.is_relative_to(site), (path.relative_to(site), link)
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].names, (path.name, link)
            checked += 1
    assert checked > 1000


def test_the_side_bar_names_every_page_of_the_index(pages: dict[Path, Page], site: Path) -> None:
    front = pages[site / "docs/README.html"]
    listed = re.findall(r"\]\(([^)#:]+)\.md\)", (ROOT / "docs/README.md").read_text())
    assert len(listed) > 20
    for page in pages.values():
        if page.path.parent == front.path.parent:
            known = {urlsplit(link).path for link in page.links} | {page.path.name}
            assert {f"{name}.html" for name in listed} <= known, page.path


def test_the_search_finds_words(site: Path) -> None:
    """In its index, by their stems."""
    text = (site / "searchindex.js").read_text()
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    for word, name in {"logrot": "docs/operations", "certbot": "docs/rotate",
                       "kustom": "docs/kubernetes"}.items():
        found = index["terms"][word]
        assert index["docnames"].index(name) in (found if isinstance(found, list) else [found])
    assert "searchtools.js" in (site / "search.html").read_text()
