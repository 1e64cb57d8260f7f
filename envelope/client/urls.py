"""URLs of servers, read strictly. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

# A name or an IPv6 address. Twisted's resolver never answers for a name with an empty label or one
# longer than RFC 1035 section 2.3.4 allows.
_HOST: Final = re.compile(
    r"(?=.{1,254}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?"
    r"|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9._-]+)?"
)
_VISIBLE: Final = re.compile(r"[!-~]+")


class BadURL(ValueError):
    """A URL that cannot be used. The text, one line, does not repeat it: it may hold a token."""


@dataclass(frozen=True, slots=True)
class ServerURL:
    """A URL taken apart: `host` is without brackets, `target` is the path with the query.

    `authority` is the host and the port as the `Host` header has them (RFC 9110 section 7.2).
    """

    text: str
    secure: bool
    host: str
    port: int
    authority: str
    target: str

    @classmethod
    def parse(cls, text: str, plain: str, secure: str) -> ServerURL:
        """Read a URL with the scheme `plain` or `secure`; raise `BadURL`."""
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            parts, host, port = urlsplit(""), "", 0
        right = parts.scheme in (plain, secure) and _HOST.fullmatch(host) and port != 0
        if not right or not _VISIBLE.fullmatch(text):
            raise BadURL(f"that is not a URL such as {secure}://host.example/path")
        if "@" in parts.netloc:
            raise BadURL("a user name or password in the URL is not supported")
        is_secure = parts.scheme == secure
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(text, is_secure, host, port or (443 if is_secure else 80), parts.netloc, target)

    @property
    def server(self) -> str:
        """HOST:PORT, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
