"""What a machine must offer, and what happens when it does not."""

import os
from typing import NoReturn

import pytest


def need(reason: str) -> NoReturn:
    """Skip for `reason`, loudly; under `CI=true` a missing piece is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"this machine cannot run this test: {reason}")
    pytest.skip(f"NOT TESTED: {reason}")
