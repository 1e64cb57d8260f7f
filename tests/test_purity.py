"""A module whose docstring says that it is pure imports nothing of Twisted.

Its own imports count, those for types too. A pure module may import an impure one of envelope for
a type or a constant, so what comes through others is not checked.
"""

import ast
import re
from pathlib import Path

import pytest

import envelope

# "Pure but for NAME" claims less, and is not checked.
_CLAIM = re.compile(r"\bpure\b(?! but for)", re.IGNORECASE)
_ROOT = Path(envelope.__file__).parent


def _claims_to_be_pure(tree: ast.Module) -> bool:
    return bool(_CLAIM.search(ast.get_docstring(tree) or ""))


def _imported(tree: ast.Module) -> set[str]:
    """The top-level packages that a module imports, functions' imports included."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


_PURE = {
    str(path.relative_to(_ROOT)): tree
    for path in sorted(_ROOT.rglob("*.py"))
    if _claims_to_be_pure(tree := ast.parse(path.read_text()))
}


@pytest.mark.parametrize("module", _PURE)
def test_a_pure_module_imports_nothing_of_twisted(module: str) -> None:
    assert "twisted" not in _imported(_PURE[module])


def test_the_core_is_pure() -> None:
    """Rewording a docstring must not take a module out of the check unnoticed."""
    assert {
        "deadlines.py", "config/listen.py", "credentials/strictjson.py", "credentials/tokens.py",
        "firewall/iptables/plan.py", "firewall/nftables/plan.py", "firewall/policy.py",
        "firewall/reconcile/wanted.py", "front/eviction.py", "front/handshake.py",
        "front/proxyheader.py", "sessions/admission.py", "sessions/answers.py",
    } <= set(_PURE)


@pytest.mark.parametrize(("text", "pure"), [
    ('"""Reads a text. Pure."""', True), ('"""Reads a text (pure)."""', True),
    ('"""Reads. Pure: bytes go in."""', True), ('"""Pure but for `now`."""', False),
    ('"""Asks a server."""', False), ("", False),
])
def test_which_docstrings_claim_it(text: str, pure: bool) -> None:
    assert _claims_to_be_pure(ast.parse(text)) is pure


@pytest.mark.parametrize("text", [
    "import twisted.internet.defer", "from twisted.logger import Logger",
    "def later():\n    from twisted.internet import reactor",
    "if TYPE_CHECKING:\n    from twisted.internet.interfaces import IReactorTime",
])
def test_which_imports_are_found(text: str) -> None:
    assert "twisted" in _imported(ast.parse(text))
