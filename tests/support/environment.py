"""What a machine must offer, and what happens when it does not."""

import os
from typing import NoReturn

import pytest


def need(reason: str) -> NoReturn:
    """Skip for `reason`, loudly; under `CI=true` a missing piece is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"this machine cannot run this test: {reason}")
    pytest.skip(f"NOT TESTED: {reason}")


def leave_out(reason: str) -> NoReturn:
    """Skip for `reason`, loudly, under `CI=true` as well.

    For what depends on who runs the tests and from where, and not on what the machine lacks: an
    ordinary user, or root in a chroot, has to be able to pass.
    """
    pytest.skip(f"NOT TESTED: {reason}")


def need_own_network() -> None:
    """Go on only in a network namespace that was made for the tests (`make test` makes one)."""
    if os.environ.get("ENVELOPE_TEST_NAMESPACE") != "1":
        need("these tests change firewall rules in place and run under tools/in-namespace only")
