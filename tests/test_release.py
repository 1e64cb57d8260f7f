"""Version and changelog fit together, and the checklist tells when they do not."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from envelope import __version__
from tests.support.tools import tool

ROOT = Path(__file__).parent.parent
RELEASE = tool("release")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
# https://keepachangelog.com/en/1.1.0/, in its order.
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_the_version_is_one_that_a_release_may_have() -> None:
    assert RELEASE.ALLOWED.fullmatch(__version__)
    assert RELEASE.current() == __version__


def test_the_readme_shows_this_version() -> None:
    assert f"[envelope#info] envelope {__version__}\n" in (ROOT / "README.md").read_text()


def test_the_changelog_has_the_form_it_says_it_has() -> None:
    head, *versions = re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)
    assert "Keep a Changelog" in head
    assert versions[0].startswith("[Unreleased]\n")
    for version in versions[1:]:
        assert re.match(r"\[\d+\.\d+\.\d+(rc\d+)?\]( - \d{4}-\d\d-\d\d)?\n", version)
    for version in versions:
        kinds = re.findall(r"^### (.+)$", version, re.MULTILINE)
        places = [KINDS.index(kind) for kind in kinds]
        assert all(a < b for a, b in pairwise(places)), kinds


def test_a_heading_is_written_for_what_is_unreleased() -> None:
    text = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- a\n\n## [1.0.0] - 2026-01-01\n"
    assert RELEASE.with_heading(text, "1.1.0", "2026-02-03") == (
        "# Changelog\n\n## [Unreleased]\n\n## [1.1.0] - 2026-02-03\n\n### Added\n\n- a\n\n"
        "## [1.0.0] - 2026-01-01\n")
    with pytest.raises(ValueError, match="has a heading already"):
        RELEASE.with_heading(text, "1.0.0", "2026-02-03")
    with pytest.raises(ValueError, match="nothing is unreleased"):
        RELEASE.with_heading(text.replace("- a", ""), "1.1.0", "2026-02-03")


def test_every_kind_of_promise_has_its_line() -> None:
    """Of the policy on breaking changes."""
    policy = (ROOT / "docs/upgrading.md").read_text()
    for what in ("options", "answers", "rules", "metrics", "log", "control socket"):
        assert re.search(rf"^\| [^|]*{what}", policy, re.MULTILINE), what
