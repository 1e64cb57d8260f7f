"""The pages that are written from the code are the code's, and others name what there is."""

from __future__ import annotations

import re
from pathlib import Path

from envelope.config import OPTIONS
from tests.support.tools import tool

ROOT = Path(__file__).parent.parent
# Made while modules are imported: a library that a command imports starts a child then.
REFERENCE = tool("reference")
PAGE = REFERENCE.page()


def test_the_reference_is_what_the_code_says() -> None:
    assert (ROOT / "docs/reference.md").read_text() == PAGE, "make reference writes it anew"


def test_the_reference_lists_events_of_the_log() -> None:
    events = set(REFERENCE.events())
    assert ("envelope", "info", "ready") in events
    assert len(events) > 50


def test_options_that_the_move_from_the_reference_names_exist() -> None:
    named = re.findall(r"`--([a-z0-9-]+)", (ROOT / "docs/migrating.md").read_text())
    assert len(named) > 15
    assert set(named) <= {option.name for option in OPTIONS}


def test_the_four_parts_of_the_documentation() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/README.md").read_text(), re.MULTILINE)
    assert headings == ["Tutorial", "How to", "Reference", "Explanation"]
