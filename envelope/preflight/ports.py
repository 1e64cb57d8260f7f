"""Whether the ports of the service can be opened; each is opened and closed again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory

from envelope.config import Config
from envelope.config.listen import ListenSpec
from envelope.front.listeners import ListenError, listen
from envelope.preflight.findings import Finding, fail, ok, warn


async def find_ports(reactor: Any, config: Config, running: bool) -> list[Finding]:
    """Open and close the socket of each listener; nothing is accepted meanwhile.

    `running` tells whether an envelope runs in this network.
    """
    found = []
    for option, spec in listeners(config):
        found.append(await _find_port(reactor, option, spec, running))
    return found


def listeners(config: Config) -> list[tuple[str, ListenSpec]]:
    """Every listener of the service, with the name of its option."""
    return [
        *(("--listen", spec) for spec in config.listen),
        *(("--admin", spec) for spec in config.admin),
    ]


async def _find_port(reactor: Any, option: str, spec: ListenSpec, running: bool) -> Finding:
    kind, _, rest = spec.endpoint.partition(":")
    if kind == "systemd":
        return warn(f"{option}={spec} cannot be tried: the service manager opens it",
                    "see to it that the unit has a socket")
    if kind == "unix":
        return _find_socket_file(option, spec, rest)
    try:
        ports = await listen(reactor, spec, Factory(), None)
    except ListenError as error:
        if not running:
            return fail(str(error), f"stop what listens there (ss -lntp), or change {option}")
        return fail(f"{error} (an envelope runs here)", f"stop that one, or change {option}")
    for port in ports:
        await maybeDeferred(port.stopListening)
    return ok(f"{option}={spec} can be opened")


def _find_socket_file(option: str, spec: ListenSpec, rest: str) -> Finding:
    # Not opened: a check that is killed would leave the file behind.
    words = [word for word in rest.split(":") if "=" not in word or word.startswith("address=")]
    path = Path(words[0].removeprefix("address=") if words else "")
    folder = path.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return fail(f"{option}={spec}: no file can be made in {folder}",
                    "make the folder, and let the service's user write into it")
    return ok(f"{option}={spec} can be made in {folder}")
