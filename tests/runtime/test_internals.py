"""The error that an upgrade causes when it removes a name that is leaned on."""

from __future__ import annotations

import json

import pytest

from envelope.runtime.internals import require, require_use


class Upgraded:
    """A class of another package."""

    def kept(self) -> None:
        """Use one attribute."""
        self.used = 1


def test_names_that_are_there_pass() -> None:
    require(Upgraded, "kept")
    require(json, "loads", "dumps")
    require_use(Upgraded.kept, "used")


def test_a_class_without_the_name_is_named_with_it() -> None:
    with pytest.raises(ImportError, match=r"test_internals\.Upgraded has no gone, lost: "):
        require(Upgraded, "kept", "gone", "lost")


def test_a_module_without_the_name_is_named_with_it() -> None:
    with pytest.raises(ImportError, match=r"^json has no _gone: "):
        require(json, "_gone")


def test_a_function_that_does_not_use_the_name_is_named_with_it() -> None:
    with pytest.raises(ImportError, match=r"Upgraded\.kept does not use hook: "):
        require_use(Upgraded.kept, "used", "hook")
