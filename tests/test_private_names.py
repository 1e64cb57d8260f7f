"""Private names of other packages are used in `envelope/runtime/` and in two more modules only.

A name is private if it begins with one underscore and does not end with one (`enum` documents those
that do), or if it is one of `UNDOCUMENTED`. It is another package's if nothing in envelope defines
it: no function, class, assignment, annotation, slot or parameter. In the modules that use such
names they are asserted at import (`envelope.runtime.internals`), or have a fallback.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import envelope

ROOT = Path(envelope.__file__).parent
# Autobahn's channel, and pyOpenSSL's context.
ALLOWED = {"front/websocket.py", "credentials/tls.py"}
# Documented although the name is private.
DOCUMENTED = {"os._exit"}
# Documented nowhere although the name is not private: the pipes of `twisted.internet.process`.
UNDOCUMENTED = {"pipes"}
TREES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))
}


def private(name: str) -> bool:
    if name in UNDOCUMENTED:
        return True
    return name.startswith("_") and not name.startswith("__") and not name.endswith("_")


def defined(tree: ast.AST) -> set[str]:
    """The private names that a module defines."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                names.add(node.attr)
            case ast.arg():
                names.add(node.arg)
            case ast.Assign(targets=[ast.Name(id="__slots__")]):
                names.update(ast.literal_eval(node.value))
    return {name for name in names if private(name)}


def used(tree: ast.AST) -> set[str]:
    """The private names that a module uses of any object, or imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) not in DOCUMENTED:
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("envelope"):
            names.update(alias.name for alias in node.names)
            names.update((node.module or "").split("."))
        elif isinstance(node, ast.Import):
            names.update(part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.Call):
            match node:
                case ast.Call(func=ast.Name(id=("getattr" | "hasattr" | "setattr" | "delattr")),
                              args=[_, ast.Constant(value=str() as name), *_]):
                    names.add(name)
    return {name for name in names if private(name)}


OWN = set().union(*(
    defined(tree) for module, tree in TREES.items()
    if module not in ALLOWED and not module.startswith("runtime/")
))


@pytest.mark.parametrize("module", [
    module for module in TREES if module not in ALLOWED and not module.startswith("runtime/")
])
def test_no_private_name_of_another_package_is_used(module: str) -> None:
    assert used(TREES[module]) - OWN == set()


@pytest.mark.parametrize("module", sorted(ALLOWED))
def test_the_exceptions_are_needed(module: str) -> None:
    assert used(TREES[module]) - defined(TREES[module]) - OWN


def test_the_check_sees_what_it_looks_for() -> None:
    tree = ast.parse(
        "import a._b\nfrom c import _d\nx._e\nx._e_\nself._f\nsuper()._g()\ngetattr(x, '_n')\n"
        "self.__h\ny.z\nx.pipes\n"
        "class K:\n    __slots__ = ('_i',)\n    def _j(self, _k): self._l = 1\n    _m: int\n"
    )
    assert used(tree) == {"_b", "_d", "_e", "_f", "_g", "_l", "_n", "pipes"}
    assert defined(tree) == {"_i", "_j", "_k", "_l", "_m"}
