"""Alerts and dashboard name what the service has, and the alerts come when they should."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from envelope.credentials.metrics import CredentialMetrics
from envelope.metrics import new_registry
from tests.support.unpacked import promtool

ROOT = Path(__file__).parent.parent
RULES = ROOT / "deploy" / "prometheus" / "envelope.rules.yml"
TESTS = RULES.with_name("envelope.test.yml")
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "envelope.json").read_text())
# A metric with its matchers, or without.
SELECTOR = re.compile(r"\b((?:envelope|controller|process)_[a-z_0-9]+|up)\b(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')
# Which machine it is, and what Prometheus adds.
OF_PROMETHEUS = {"job", "instance", "le"}


def known() -> dict[str, dict[str, set[str]]]:
    """Every sample's name, with its labels and their values."""
    registry = new_registry()
    for path in (ROOT / "envelope").glob("*/metrics.py"):
        module = import_module(f"envelope.{path.parent.name}.metrics")
        for name, kind in vars(module).items():
            if name.endswith("Metrics") and kind.__module__ == module.__name__:
                made = kind(registry)
                if isinstance(made, CredentialMetrics):
                    made.certificate_ends(0)
    found: dict[str, dict[str, set[str]]] = {"up": {}}
    for family in registry.collect():
        found.setdefault(family.name, defaultdict(set))
        for sample in family.samples:
            labels = found.setdefault(sample.name, defaultdict(set))
            for label, value in sample.labels.items():
                labels[label].add(value)
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def alerts() -> list[str]:
    """The expressions of the rules, each with the lines that it goes on over."""
    return re.findall(r"^ +expr: (?:>-\n)?((?:.+\n)+?) *(?=\w+:|- |\n|$)", RULES.read_text(),
                      re.MULTILINE)


def accepted(*arguments: str | Path, given: str = "") -> str:
    """What promtool says of what it accepts."""
    done = promtool(*arguments, given=given)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_metric_label_and_value_exists() -> None:
    series = known()
    assert len(alerts()) == RULES.read_text().count(" expr: ")
    used = set()
    for text in (*expressions(), *alerts(), TESTS.read_text()):
        for name, matchers in SELECTOR.findall(text):
            used.add(name)
            assert name in series, name
            for label, values in MATCHER.findall(matchers):
                if label in OF_PROMETHEUS:
                    continue
                assert label in series[name], (name, label)
                for value in values.split("|"):
                    assert not series[name][label] or value in series[name][label], (name, value)
    assert len(used) > 20


def test_the_dashboard_shows_what_matters() -> None:
    text = "\n".join(expressions())
    for name in ("envelope_slots_used", "envelope_requests_total", "envelope_grant_seconds_bucket",
                 "envelope_firewall_drift_total", "envelope_tls_not_after_seconds"):
        assert name in text
    rows = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert [row.get("repeat") for row in rows] == [None, "instance"]


def test_panels_have_their_own_place_and_number() -> None:
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken = set()
    for panel in everything:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_query_asks_the_chosen_source_for_the_chosen_machines() -> None:
    for panel in panels():
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            for name, matchers in SELECTOR.findall(target["expr"]):
                assert 'instance=~"$instance"' in matchers, (panel["title"], name)


@pytest.mark.process
def test_every_query_can_be_read(tmp_path: Path) -> None:
    """By Prometheus itself, each as a rule."""
    rules = [{"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m")}
             for number, text in enumerate(expressions())]
    path = tmp_path / "rules.json"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in accepted("check", "rules", path)


@pytest.mark.process
def test_alerts_come_when_they_should() -> None:
    accepted("check", "rules", RULES)
    accepted("test", "rules", TESTS)


def test_every_alert_has_a_test_and_a_way_out() -> None:
    names = re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE)
    assert len(names) > 10
    text = TESTS.read_text()
    for name in names:
        firing = re.search(rf"alertname: {name}\n +exp_alerts:\n +- exp_labels", text)
        assert firing, name
        assert re.search(rf"alertname: {name}}}", text), f"{name} is never expected to be silent"
    assert RULES.read_text().count("description:") == len(names)
