"""Programs of tools/, whose names have no .py, as modules."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


def tool(name: str) -> ModuleType:
    """A program of tools/, imported without leaving a compiled file beside it."""
    loader = SourceFileLoader(f"tool_{name.replace('-', '_')}", str(TOOLS / name))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        # A data class looks itself up there.
        patch.setitem(sys.modules, loader.name, module)
        loader.exec_module(module)
    return module
