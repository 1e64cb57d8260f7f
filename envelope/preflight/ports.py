"""Whether the ports of the service can be opened; each is opened and closed again."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory

from envelope.config import Config
from envelope.config.control import control_path
from envelope.config.listen import ListenSpec
from envelope.front.listeners import ListenError, listen
from envelope.preflight.findings import Finding, fail, ok, warn
from envelope.runtime.unixlistener import LONGEST_PATH

_TAKEN: Final = "another running service listens there"


async def find_ports(reactor: Any, config: Config, running: bool) -> list[Finding]:
    """Open the sockets of all listeners, and close them; nothing is accepted meanwhile.

    `running` tells whether an envelope runs in this network.
    """
    found = []
    opened: list[tuple[str, IListeningPort]] = []
    try:
        for option, spec in listeners(config):
            found.append(await _find_port(reactor, option, spec, running, opened))
    finally:
        for _, port in opened:
            await maybeDeferred(port.stopListening)
    return found


def listeners(config: Config) -> list[tuple[str, ListenSpec]]:
    """Every listener of the service, with the name of its option."""
    return [
        *(("--listen", spec) for spec in config.listen),
        *(("--admin", spec) for spec in config.admin),
        *(("--status", spec) for spec in config.status),
    ]


async def _find_port(
    reactor: Any, option: str, spec: ListenSpec, running: bool,
    opened: list[tuple[str, IListeningPort]],
) -> Finding:
    """Try one listener; its sockets join `opened`, each with its option."""
    kind, _, rest = spec.endpoint.partition(":")
    if kind == "systemd":
        return warn(f"{option}={spec} cannot be tried: the service manager opens it",
                    "see to it that the unit has a socket")
    if kind == "unix":
        return _find_socket_file(option, spec, rest)
    try:
        ports = await listen(reactor, spec, Factory(), None)
    except ListenError as error:
        if "in use" not in str(error):
            return fail(str(error), f"correct {option}, or what the line says")
        for other, port in opened:
            if getattr(port.getHost(), "port", None) == spec.port:
                return fail(f"{error} (by {other})", f"change that, or {option}={spec}")
        if running:
            return fail(f"{error} (an envelope runs here)", f"stop that one, or change {option}")
        return fail(str(error), f"stop what listens there (ss -lntp), or change {option}")
    opened += [(f"{option}={spec}", port) for port in ports]
    return ok(f"{option}={spec} can be opened")


def _find_socket_file(option: str, spec: ListenSpec, rest: str) -> Finding:
    words = [word for word in rest.split(":") if "=" not in word or word.startswith("address=")]
    path = Path(words[0].removeprefix("address=") if words else "").absolute()
    if trouble := _trouble_with_socket(path, path.parent):
        return fail(f"{option}={spec}: {trouble}", _remedy(trouble))
    return ok(f"{option}={spec} can be made")


def find_control(config: Config, environ: Mapping[str, str]) -> list[Finding]:
    """Fail when the control socket of --control cannot be made; warn when it is the default."""
    path = control_path(config.control, environ)
    if path is None:
        return []
    # A start makes the folders that are missing.
    folder = next(each for each in path.parents if os.path.exists(each))
    trouble = _trouble_with_socket(path, folder)
    if not trouble:
        return [ok(f"the control socket {path} can be made")]
    what = f"the control socket {path} cannot be made: {trouble}"
    if config.control is not None:
        return [fail(what, _remedy(trouble))]
    return [warn(f"{what}; envelope sessions, revoke and status need it",
                 "name another path with --control, or say --control=none")]


def _trouble_with_socket(path: Path, folder: Path) -> str:
    """Why a socket cannot be made at `path`, in `folder`, or "".

    It is not made: a check that is killed would leave the file behind.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        return f"the path has more than {LONGEST_PATH} bytes"
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        return f"no file can be made in {folder}"
    if not os.path.lexists(path):
        return ""
    if not path.is_socket():
        return "there is something else than a socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fsencode(path))
        except ConnectionRefusedError:
            return ""  # that of a killed service, which a start replaces
        except OSError:
            pass  # its backlog is full, or it is another user's
    return _TAKEN


def _remedy(trouble: str) -> str:
    do = "stop that one" if trouble == _TAKEN else "let the service's user make a file there"
    return f"{do}, or name another path"
