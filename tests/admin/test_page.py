"""The status page's files."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from envelope.admin.page import POLICY, page_views
from tests.support.browser import node_file

WEB = resources.files("envelope.admin") / "web"
OURS = ("page.html", "page.css", "page.js", "charts.js")


@pytest.mark.parametrize("name", ["uPlot.iife.min.js", "uPlot.min.css", "LICENSE"])
def test_the_chart_library_is_the_registrys(name: str) -> None:
    """Byte by byte, in the version that the file beside it names."""
    package = node_file("uplot/package.json").parent
    published = package / ("LICENSE" if name == "LICENSE" else f"dist/{name}")
    assert (WEB / "uplot" / name).read_bytes() == published.read_bytes()
    version = (WEB / "uplot" / "VERSION").read_text().strip()
    assert f'"version": "{version}"' in (package / "package.json").read_text()


def test_the_page_names_its_own_files_only() -> None:
    page = (WEB / "page.html").read_text()
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    served = page_views().keys() | {"/status", "/metrics", "/readyz", "/health"}
    assert named
    assert {f"/{name}" for name in named} <= served
    for name in OURS:
        assert not re.search(r"https?:|//[a-z]+\.", (WEB / name).read_text()), name


def test_the_page_has_no_inline_script_style_or_handler() -> None:
    page = (WEB / "page.html").read_text()
    assert not re.search(r"<style|<script>|style=|\son[a-z]+=", page)
    assert "unsafe" not in POLICY
    for name in ("page.js", "charts.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|setAttribute\(\"style",
            (WEB / name).read_text()), name


def test_the_script_is_small() -> None:
    """An operator can read it."""
    lines = [line for name in ("page.js", "charts.js")
             for line in (WEB / name).read_text().splitlines() if line.strip()]
    assert len(lines) <= 330
    assert max(map(len, lines)) <= 160
