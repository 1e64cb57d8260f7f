"""What the programs of this folder share: how they are told what to do, and tell what happened.

A program gets the file of the authority to trust as its last argument. It prints `ready` and its
version, then reads jobs, one a line, and does them side by side, until its standard input ends:

    NUMBER <tab> SUB-PROTOCOL to offer, or nothing <tab> SECONDS to hold, or nothing <tab> URL

It opens the URL, and closes after so many seconds, or waits for the server to close. It prints:

    open <tab> NUMBER <tab> the sub-protocol that the server chose, or nothing
    noise <tab> NUMBER <tab> what the server sent although nothing had ended
    end <tab> NUMBER <tab> STATUS (101 if it was open; 0 if the client does not show it) <tab>
        close code, or nothing <tab> reason
"""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

AUTHORITY = sys.argv[-1]
_lock = threading.Lock()


@dataclass(frozen=True)
class Job:
    """One connection; `hold` is None if the server is to close it."""

    number: str
    protocol: str
    hold: float | None
    url: str

    @property
    def protocols(self) -> list[str]:
        """The sub-protocols to offer."""
        return [self.protocol] if self.protocol else []

    def opened(self, protocol: str | None) -> None:
        """Tell that it is open."""
        tell("open", self.number, protocol or "")

    def noise(self, what: str) -> None:
        """Tell that the server has sent something."""
        tell("noise", self.number, what)

    def ended(self, status: int, code: int | None = None, reason: str | None = "") -> None:
        """Tell that it has ended, or was not opened."""
        tell("end", self.number, str(status), "" if code is None else str(code), reason or "")


def tell(*words: str) -> None:
    """Print one line."""
    with _lock:
        print(*(" ".join(word.split()) for word in words), sep="\t", flush=True)


def parse(line: str) -> Job:
    """Read one job."""
    number, protocol, hold, url = line.rstrip("\n").split("\t")
    return Job(number, protocol, float(hold) if hold else None, url)


def jobs(version: str) -> Iterator[Job]:
    """Tell the version, and read jobs until the end."""
    tell("ready", version)
    for line in sys.stdin:
        yield parse(line)


def in_threads(version: str, work: Callable[[Job], None]) -> None:
    """Do each job in a thread of its own."""
    for job in jobs(version):
        threading.Thread(target=work, args=(job,), daemon=True).start()


def trusting() -> ssl.SSLContext:
    """A TLS context that trusts the authority."""
    return ssl.create_default_context(cafile=AUTHORITY)
