"""The benchmarks can be imported, and say which figures moved by more than chance."""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import benchmarks
from benchmarks import trace
from benchmarks.reference import ReferenceFirewall
from benchmarks.results import by_number
from benchmarks.verdicts import moved
from envelope.firewall import IFirewall

MODULES = [each.name for each in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")]


@pytest.mark.parametrize("name", MODULES)
def test_what_a_benchmark_imports_of_the_service_exists(name: str) -> None:
    """A name that moved would be missed only by whoever measures next."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("envelope"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(
                    f"{node.module}.{alias.name}"), f"{node.module} has no {alias.name}"


def coming(*rates: float) -> dict[str, Any]:
    """Results in which nftables made visits at these rates, beside 500 a second without rules."""
    def figures(values: tuple[float, ...]) -> dict[str, Any]:
        return {
            "rate": sum(values) / len(values), "cpu_ms": 2.0, "faults": {},
            "rounds": [{"rate": value, "cpu_ms": 2.0} for value in values],
        }

    none = (500.0,) * len(rates)
    variants = {"none": figures(none), "reference": figures((20.0,)), "nftables": figures(rates)}
    return {"coming": {"variants": variants}}


@pytest.mark.parametrize(("after", "said"), [
    ((400.0, 440.0), None),
    ((390.0, 410.0), None),
    ((300.0, 310.0), "WORSE"),
    ((490.0, 500.0), "better"),
])
def test_a_figure_that_moved_more_than_its_rounds_is_told(
    after: tuple[float, ...], said: str | None
) -> None:
    """The spread of the wider run is what chance may do."""
    lines = [line for line in moved(coming(400.0, 440.0), coming(*after)) if "16 coming" in line]
    assert [line.partition(":")[0] for line in lines] == ([said] if said else [])


def test_a_figure_that_is_new_or_gone_has_not_moved() -> None:
    """There is nothing to compare it with."""
    assert moved({}, coming(400.0)) == []
    assert moved(coming(400.0), {}) == []


def test_the_references_way_is_a_whole_firewall() -> None:
    """What the service asks of one has grown before without it."""
    asked = {name for name in vars(IFirewall) if not name.startswith("_")}
    assert asked <= {name for name in dir(ReferenceFirewall) if not name.startswith("_")}


def test_figures_stand_in_their_columns_and_in_the_order_of_their_numbers() -> None:
    """The results have their keys in the order of texts, which is another one."""
    parts = {part: float(number) for number, part in enumerate(trace.PARTS)}
    shown = trace.rows({"iptables": {"grant": dict(sorted(parts.items()))}})
    assert shown == [("iptables", "grant", "0.00", "1.00", "2.00", "3.00")]
    assert by_number({"1": "a", "16": "b", "2": "c"}) == ([1, 2, 16], ["a", "c", "b"])
