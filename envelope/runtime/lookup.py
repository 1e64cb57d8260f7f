"""Looks up host names in threads that nothing waits for.

Twisted 26.10 looks names up in the threads of its pool, and waits for these at the end of the
process: for 10 s and more while a name server does not answer (resolv.conf(5), "timeout" and
"attempts"). A look-up cannot be ended, only abandoned.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from threading import Thread
from typing import Any, Final

from twisted.internet import threads
from twisted.internet._resolver import GAIResolver
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from envelope.runtime.internals import require_use

require_use(GAIResolver.__init__, "_getThreadPool")
require_use(GAIResolver.resolveHostName, "_getThreadPool")
require_use(threads.deferToThreadPool, "callInThreadWithCallback")


class _DaemonThreads:
    """Replaces a pool of threads: each call has a thread of its own, which ends with the process.

    There are few calls: one for each listener at the start, and one for each fetch of keys, of
    which the next begins 5 s later or more.
    """

    def callInThreadWithCallback(
        self, finished: Callable[[bool, object], object], function: Callable[..., object],
        *arguments: Any, **named: Any,
    ) -> None:
        """Call `function`; then `finished`, in the same thread, with success and the result."""

        def run() -> None:
            try:
                result = function(*arguments, **named)
            except Exception:
                finished(False, Failure())
            else:
                finished(True, result)

        Thread(target=run, name="look-up", daemon=True).start()


_POOL: Final[Any] = _DaemonThreads()


def addresses_of(reactor: Any, host: str, port: int | None) -> Deferred[list[tuple[int, str]]]:
    """The address families and addresses of `host`, to listen on; cancelling abandons the look-up.

    Fails with `OSError`.
    """
    found = threads.deferToThreadPool(
        reactor, _POOL, socket.getaddrinfo, host, port,
        type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE,
    )
    return found.addCallback(lambda each: list(dict.fromkeys(
        (int(family), str(address[0])) for family, *_, address in each
    )))


def abandon_lookups_at_the_end(reactor: Any) -> None:
    """Make `reactor` look names up so that the end of the process waits for none of them."""
    reactor.installNameResolver(GAIResolver(reactor, lambda: _POOL))
