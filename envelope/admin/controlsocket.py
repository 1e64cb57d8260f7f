"""The service's control socket: where it is, and what happens when it cannot be there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger

from envelope.admin.control import ControlFactory, Operations
from envelope.config.control import ControlOption, control_path
from envelope.runtime.unixlistener import SocketRefused, UnixListener

_log = Logger(namespace="envelope.control")


class ControlError(Exception):
    """The socket of `--control` cannot be opened; the text is one line."""


class ControlSocket:
    """The control socket of one service, if it has one."""

    def __init__(
        self, reactor: Any, option: ControlOption, environ: Mapping[str, str],
        operations: Operations,
    ) -> None:
        self._reactor = reactor
        self._given = option is not None
        self._path = control_path(option, environ)
        self._factory = ControlFactory(operations, reactor)
        self._listener: UnixListener | None = None

    def open(self) -> None:
        """Open it, and answer from now on.

        Without the option, a socket that cannot be opened is a line in the log: another service in
        another network namespace may have the same folder. With it, `ControlError` is raised.
        """
        if self._path is None:
            return
        try:
            self._listener = UnixListener(self._reactor, self._path)
        except SocketRefused as error:
            reason = f"cannot open the control socket {self._path}: {error}"
            if self._given:
                raise ControlError(reason) from None
            _log.warn(
                "{reason}; envelope sessions, revoke and status need --control with another path",
                reason=reason,
            )
            return
        self._listener.start(self._factory)
        _log.info("control socket at {path}", path=str(self._path))

    def close(self) -> None:
        """Remove it, and drop its connections."""
        if self._listener is not None:
            self._listener.close()
        self._factory.abort_all()
