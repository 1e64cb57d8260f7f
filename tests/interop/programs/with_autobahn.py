"""Jobs done with Autobahn's client for Twisted; see `common`."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import autobahn
import common
from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    connectWS,
)
from twisted.internet import reactor
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

ANY_REACTOR: Any = reactor
TRUSTED = trustRootFromCertificates([Certificate.loadPEM(Path(common.AUTHORITY).read_bytes())])


class Holding(WebSocketClientProtocol):  # type: ignore[misc]
    job: common.Job
    opened = False

    def onOpen(self) -> None:
        self.opened = True
        self.job.opened(self.websocket_protocol_in_use)
        if self.job.hold is not None:
            ANY_REACTOR.callLater(self.job.hold, self.sendClose, 1000)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.job.noise(repr(payload))

    def onPing(self, payload: bytes) -> None:
        self.job.noise("ping")

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if self.opened:
            self.job.ended(101, code, reason)
        else:
            # The status is in a text for people only.
            status = re.search(r"\[(\d{3})\]", reason or "")
            self.job.ended(int(status[1]) if status else 0)


def hold(job: common.Job) -> None:
    factory = WebSocketClientFactory(job.url, protocols=job.protocols)
    factory.protocol = type("Protocol", (Holding,), {"job": job})
    factory.noisy = False
    connectWS(factory, optionsForClientTLS(factory.host.strip("[]"), TRUSTED))


def read() -> None:
    for job in common.jobs(autobahn.__version__):
        ANY_REACTOR.callFromThread(hold, job)
    ANY_REACTOR.callFromThread(ANY_REACTOR.stop)


ANY_REACTOR.callWhenRunning(threading.Thread(target=read, daemon=True).start)
ANY_REACTOR.run()
