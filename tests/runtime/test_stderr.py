"""Lines for the operator on standard error."""

from __future__ import annotations

import pytest

from envelope.runtime.stderr import tell


def test_any_text_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """A path may hold bytes that are no text."""
    tell("/tmp/\u00fc\udcff cannot be read")
    assert capfd.readouterr().err == "envelope: /tmp/\u00fc? cannot be read\n"
