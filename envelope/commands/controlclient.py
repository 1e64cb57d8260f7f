"""Asks a running service over its control socket, for `sessions`, `revoke` and `status`."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from time import monotonic
from typing import Any, Final

from twisted.python import usage

from envelope.admin.wire import VERSION, query_line
from envelope.commands.failing import Failed
from envelope.commands.values import FILE
from envelope.config.control import control_path
from envelope.config.values import path_or_none

# Seconds. A revocation is answered once the grants are gone, which takes as long as the firewall
# refuses; the service goes on with it when nobody waits.
WAIT: Final = 5.0
REVOKE_WAIT: Final = 30.0
# Bytes. A session takes a few hundred.
_MOST_ANSWER: Final = 1 << 28

CONTROL_PARAMETER: Final = [
    "control", None, None,
    "path of the service's control socket [default: $ENVELOPE_CONTROL, else "
    "$RUNTIME_DIRECTORY/control, else /run/envelope/control]",
]


class ControlOptions(usage.Options):
    """The option that the three commands share."""

    takes: Final = {"control": FILE}
    optParameters = [CONTROL_PARAMETER]  # noqa: RUF012

    def postOptions(self) -> None:
        """Find the socket's path."""
        given = self["control"]
        if given is None:
            given = os.environ.get("ENVELOPE_CONTROL") or None
        try:
            option = None if given is None else path_or_none(given)
        except ValueError as error:
            raise usage.UsageError(f"--control: {error}") from None
        where = control_path(option, os.environ)
        if where is None:
            raise usage.UsageError("--control=none is a service without a control socket")
        self.path = where

    def ask(self, command: str, **members: object) -> dict[str, Any]:
        """The members of the service's answer; raise `Failed`."""
        line = query_line(command, **members)
        if command == "revoke":
            return ask(self.path, line, REVOKE_WAIT, "; it goes on with the revocation")
        return ask(self.path, line)


def ask(path: Path, line: bytes, wait: float = WAIT, meanwhile: str = "") -> dict[str, Any]:
    """Send one request, and return the answer's members; raise `Failed`.

    `meanwhile` is what to say besides when no answer comes in `wait` seconds.
    """
    deadline = monotonic() + wait
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(wait)
        try:
            connection.connect(os.fsencode(path))
            connection.sendall(line)
            received = _read_line(connection, deadline)
        except TimeoutError:
            raise Failed(
                f"the service at {path} has not answered within {wait:g} s{meanwhile}"
            ) from None
        except BlockingIOError:
            # unix(7): with a timeout, connecting does not wait for a place in a full backlog.
            raise Failed(
                f"the service at {path} does not answer, and too many others wait for it"
            ) from None
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise Failed(
                f"no service is at {path}: is it running, and with this --control?"
            ) from None
        except PermissionError:
            raise Failed(
                f"no permission to use {path}: run this as the user of the service, or as root"
            ) from None
        except OSError as error:
            raise Failed(f"cannot ask the service at {path}: {error.strerror or error}") from None
    return _members(received, path)


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(1 << 16)
        if not part:
            raise ConnectionResetError("it ended the connection before its answer")
        parts.append(part)
        size += len(part)
        if part.endswith(b"\n") or size > _MOST_ANSWER:
            return b"".join(parts)


def _members(received: bytes, path: Path) -> dict[str, Any]:
    try:
        members = json.loads(received)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict) or members.pop("version", None) != VERSION:
        raise Failed(f"what answers at {path} is not a service that this command understands")
    if "error" in members:
        raise Failed(str(members["error"]))
    return members
