"""Skip or fail a test that this machine cannot run."""

import os
from typing import NoReturn

import pytest


def need(reason: str) -> NoReturn:
    """Skip with `NOT TESTED` and `reason`; with `CI=true`, fail: CI has to be able to run all."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"this machine cannot run this test: {reason}")
    pytest.skip(f"NOT TESTED: {reason}")


def leave_out(reason: str) -> NoReturn:
    """Skip with `NOT TESTED` and `reason`, with `CI=true` too.

    For what depends on the user who runs the tests, or on a chroot: CI need not run as root outside
    of one.
    """
    pytest.skip(f"NOT TESTED: {reason}")


def need_own_network() -> None:
    """Skip, or fail, outside a network namespace made for the tests (tools/in-namespace)."""
    if os.environ.get("ENVELOPE_TEST_NAMESPACE") != "1":
        need("tests that change firewall rules run only under tools/in-namespace")
