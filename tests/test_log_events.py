"""docs/log.md lists every event of the log with the fields that the code gives it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import envelope
from envelope.config import Config
from envelope.config.shown import as_words, shown
from envelope.runtime.jsonlog import as_json
from tests.support.pages import block
from tests.test_docs import rows

ROOT = Path(envelope.__file__).parent
SHOWN = block("docs/log.md", '{"time"')
LEVELS = ("debug", "info", "warn", "error", "critical")


def fields_of(call: ast.Call, functions: dict[str, ast.FunctionDef]) -> set[str]:
    """The names of a call's keywords; for `**function(...)`, the keys of what it returns."""
    names: set[str] = set()
    for keyword in call.keywords:
        if keyword.arg is not None:
            names.add(keyword.arg)
            continue
        assert isinstance(keyword.value, ast.Call)
        assert isinstance(keyword.value.func, ast.Name)
        returned = [
            node.value for node in ast.walk(functions[keyword.value.func.id])
            if isinstance(node, ast.Return)
        ]
        for each in returned:
            assert isinstance(each, ast.Dict)
            names |= {key.value for key in each.keys if isinstance(key, ast.Constant)}
    return {name for name in names if name != "event" and not name.startswith("log_")}


def events_in(tree: ast.AST) -> Iterator[tuple[str, str, set[str]]]:
    """Each event that a module logs: its name, its level, its fields."""
    functions = {
        node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        for keyword in node.keywords:
            if keyword.arg == "event" and node.func.attr in LEVELS:
                assert isinstance(keyword.value, ast.Constant)
                yield keyword.value.value, node.func.attr, fields_of(node, functions)


def test_the_page_has_every_event_with_its_fields() -> None:
    logged: dict[str, tuple[str, set[str]]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for name, level, fields in events_in(ast.parse(path.read_text())):
            assert logged.setdefault(name, (level, fields)) == (level, fields), name
    listed = {
        name.strip(" `"): (level, set(re.findall(r"`(\w+)`", fields)))
        for name, level, fields, _ in rows("docs/log.md")
    }
    assert len(listed) > 20
    assert listed == logged


def test_the_event_that_the_page_shows_has_its_fields() -> None:
    example = json.loads(SHOWN.text)
    (fields,) = [re.findall(r"`(\w+)`", fields) for name, _, fields, _ in rows("docs/log.md")
                 if name.strip(" `") == example["event"]]
    assert example.keys() == {"time", "level", "namespace", "message", "event", *fields}


def test_the_event_stands_in_json() -> None:
    event: dict[str, Any] = {
        "log_namespace": "envelope", "log_format": "ready", "log_time": 0.0, "event": "ready",
    }
    line = as_json(event)
    assert line is not None
    assert json.loads(line)["event"] == "ready"


def test_the_options_of_a_start() -> None:
    """As text those that are not the default, without secrets and without what a terminal obeys."""
    config = Config(
        verify_jwks_url="https://user:secret@keys.example/set?token=secret", timeout=90.0,
        verify_key=(Path("/a key"), Path("/b\x1b[2J")), token_required=False, max_clients=1,
    )
    assert as_words(config) == (
        "--verify-key='/a key' --verify-key='/b?[2J' "
        "--verify-jwks-url=https://keys.example/set --token-required=false --timeout=90"
    )
    assert as_words(Config()) == ""
    assert as_words(Config(tx_max_rate=1.5e9, timeout=1_234_567.25, idle=0.5)) == (
        "--timeout=1234567.25 --idle=0.5 --tx-max-rate=1500000000")
    assert as_words(Config(allow=(), admin=())) == "--allow=none --admin=none"
    assert json.loads(json.dumps(shown(config)))["max-clients"] == 1
