"""SECURITY.md names a test for each promise; a test that has gone takes its promise along."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_test_that_guards_a_promise_is_there() -> None:
    named = NAMED.findall((ROOT / "SECURITY.md").read_text())
    assert len(named) > 40
    for path, name in named:
        there = {
            node.name for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in there, f"{path} has no {name}"


def test_every_promise_names_a_test() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    table = text.partition("| promise | test |")[2].partition("\n\n")[0]
    rows = table.strip().splitlines()[1:]
    assert rows
    for row in rows:
        assert NAMED.search(row), row
