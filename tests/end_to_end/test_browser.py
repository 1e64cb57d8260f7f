"""A real browser: it starts, runs scripts, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import browser, node_file


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as driver:
        yield driver


def test_it_starts_and_runs_scripts(chromium: Any) -> None:
    chromium.get("data:text/html,<title>a page</title>")
    chromium.execute_script(node_file("axe-core/axe.min.js").read_text())
    assert chromium.title == "a page"
    done = chromium.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    assert done["violations"]
    assert chromium.get_log("browser") == []
