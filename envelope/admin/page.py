"""The status page's files, and the headers that keep a browser to them."""

from __future__ import annotations

from importlib import resources
from typing import Final

from envelope.admin.answers import Answer, View

# The page loads nothing from elsewhere, runs no script but its own, and makes no text into markup
# (W3C Content Security Policy Level 3; Trusted Types).
POLICY: Final = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
    "img-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    "require-trusted-types-for 'script'", "trusted-types 'none'",
))
HEADERS: Final = (
    ("Content-Security-Policy", POLICY),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    # nginx would keep events back until they fill its buffer.
    ("X-Accel-Buffering", "no"),
)

_SCRIPT: Final = "text/javascript; charset=utf-8"
_STYLE: Final = "text/css; charset=utf-8"
# Each path with its file in the folder `web`, and the file's type.
_FILES: Final = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", _SCRIPT),
    "/charts.js": ("charts.js", _SCRIPT),
    "/page.css": ("page.css", _STYLE),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/uplot.js": ("uplot/uPlot.iife.min.js", _SCRIPT),
    "/uplot.css": ("uplot/uPlot.min.css", _STYLE),
}


def page_views() -> dict[str, View]:
    """The page's files by path, read now."""
    folder = resources.files("envelope.admin") / "web"
    return {
        path: _view(Answer((folder / name).read_bytes(), content_type=content_type))
        for path, (name, content_type) in _FILES.items()
    }


def _view(answer: Answer) -> View:
    return lambda: answer
