"""Checks that other packages still have the undocumented names that we lean on.

Called when the module that leans on a name is imported. An upgrade that removes or no longer uses
the name then fails at once, and the error says which name it was.
"""

from __future__ import annotations

import inspect
from types import CodeType
from typing import Any


def require(owner: Any, *names: str) -> None:
    """Raise `ImportError` unless `owner`, a class or module, has attributes of these `names`."""
    _refuse(owner, "has no", [name for name in names if not hasattr(owner, name)])


def require_use(function: Any, *names: str) -> None:
    """Raise `ImportError` unless the code of `function` uses attributes of these `names`.

    For attributes that only instances have, and for methods that we override: an override that is
    not called any more would go unnoticed.
    """
    code: CodeType = function.__code__
    _refuse(function, "does not use", [name for name in names if name not in code.co_names])


def require_parameters(function: Any, *names: str) -> None:
    """Raise `ImportError` unless the last parameters of `function` have these `names`."""
    last = list(inspect.signature(function).parameters)[-len(names) :]
    _refuse(function, "has other parameters than", [] if last == list(names) else list(names))


def _refuse(owner: Any, fault: str, names: list[str]) -> None:
    if names:
        module = getattr(owner, "__module__", None)
        place = f"{module}.{owner.__qualname__}" if module else owner.__name__
        raise ImportError(
            f"{place} {fault} {', '.join(names)}: this version of the package does not work with "
            "envelope; install one that it was tested with"
        )
