"""Sphinx's configuration: `make docs` (docs/decisions/documentation-tool.md says why Sphinx).

The source folder is the repository, so that links mean what they mean in the files. The side bar is
made from the tables of docs/README.md.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from envelope import __version__  # noqa: E402

project = "envelope"
release = version = __version__
root_doc = "docs/README"
include_patterns = ["*.md", "docs/**.md", "examples/**.md"]
extensions = ["myst_parser"]
myst_heading_anchors = 4
# Blocks of "console" hold what programs print, which is no shell's language.
suppress_warnings = ["misc.highlighting_failure"]
highlight_language = "none"
html_theme = "furo"
html_title = f"envelope {version}"
html_show_copyright = False


def side_bar(app: Any, page: str, source: list[str]) -> None:
    """Append hidden lists of contents to a folder's README: one for each part with a table."""
    if not page.endswith("README") or page == "README":
        return
    folder = Path(app.srcdir, page).parent
    listed: set[str] = set()
    parts = re.split(r"^## ", source[0], flags=re.MULTILINE)
    for part in parts[1:] if page == root_doc else [source[0]]:
        links = re.findall(r"\]\(([^)#:]+\.md)\)", part)
        pages = [(folder / link).resolve().relative_to(ROOT).with_suffix("") for link in links]
        if not listed and page == root_doc:
            pages.insert(0, Path("README"))
        names = dict.fromkeys(str(each) for each in pages if str(each) not in listed)
        title = part.partition("\n")[0] if page == root_doc else ""
        lines = [":hidden:", f":caption: {title}" if title else "", "", *(f"/{n}" for n in names)]
        source[0] += "\n```{toctree}\n" + "\n".join(lines) + "\n```\n"
        listed |= names.keys()


def setup(app: Any) -> None:
    """See Sphinx's extensions."""
    app.connect("source-read", side_bar)
