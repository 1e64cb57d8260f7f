"""The Dockerfile, by reading it; `tools/try-image` does its steps and runs the image."""

from __future__ import annotations

import json
import re
from importlib.metadata import distributions
from pathlib import Path

import pytest

from envelope.config import Config
from tests.support.tools import tool

ROOT = Path(__file__).parent.parent
STEPS = [*tool("try-image").instructions((ROOT / "Dockerfile").read_text())]


def last(word: str) -> str:
    return [rest for each, rest in STEPS if each == word][-1]


def test_the_base_is_pinned_by_its_content() -> None:
    bases = [rest for word, rest in STEPS if word == "ARG" and rest.startswith("BASE=")]
    assert len(bases) == 1
    assert re.fullmatch(r"BASE=debian:trixie-\d{8}-slim@sha256:[0-9a-f]{64}", bases[0])
    assert all(rest.startswith("${BASE}") for word, rest in STEPS if word == "FROM")


def test_dependencies_are_those_of_the_constraints() -> None:
    (install,) = [rest for word, rest in STEPS if word == "RUN" and "pip install" in rest]
    assert "PIP_CONSTRAINT=/source/constraints.txt" in install


def test_it_runs_as_an_ordinary_user_named_by_number() -> None:
    """Kubernetes' runAsNonRoot asks for a number."""
    assert last("USER") == "65532:65532"


def test_a_stop_waits_for_the_handlers() -> None:
    entrypoint = json.loads(last("ENTRYPOINT"))
    assert entrypoint[:3] == ["env", "--block-signal=TERM,INT,QUIT", "twistd"]
    assert last("STOPSIGNAL") == "SIGTERM"


def test_the_health_check_asks_where_the_service_answers_by_default() -> None:
    _, _, check = last("HEALTHCHECK").partition(" CMD ")
    program = json.loads(check)
    assert program[:2] == ["python3", "-c"]
    compile(program[2], "Dockerfile", "exec")
    (admin,) = Config().admin
    assert str(admin) == "tcp:9990:interface=127.0.0.1"
    assert "H('127.0.0.1', 9990, " in program[2]
    assert "'/readyz'" in program[2]


@pytest.mark.process
def test_the_build_gets_what_it_copies() -> None:
    context = set(tool("try-image").context())
    assert {"constraints.txt", "setup.cfg", "pyproject.toml", "README.md", "LICENSE",
            "deploy/envelope.service", "tools/sbom", "envelope/py.typed",
            "twisted/plugins/envelope_plugin.py"} <= context
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "envelope").rglob("*.py")} \
        <= context
    assert not any(name.startswith(("tests/", "docs/", ".")) for name in context)


def test_the_bill_of_materials() -> None:
    bill = tool("sbom").bill(
        "libc6:amd64\t2.41-12\tamd64\nnftables\t1.1.3-1\tamd64\n", [*distributions()],
        {"ID": "debian", "VERSION_ID": "13"})
    assert json.loads(json.dumps(bill)) == bill
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["purl"].startswith("pkg:pypi/envelope@")
    packages = {part["purl"] for part in bill["components"]}
    assert "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=debian-13" in packages
    assert any(package.startswith("pkg:pypi/twisted@") for package in packages)
    assert not any(package.startswith("pkg:pypi/envelope@") for package in packages)
    assert len(packages) == len(bill["components"])
