"""What `twistd envelope` runs: its options, and the service that is made from them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from twisted.logger import Logger
from twisted.python import usage

from envelope import preflight
from envelope._version import __version__
from envelope.config.options import ServiceOptions
from envelope.runtime.background import report_for
from envelope.runtime.capabilities import keep_memory_private
from envelope.runtime.reactor import spawn_cheaply, use_monotonic_clock
from envelope.runtime.servicelog import service_log
from envelope.runtime.signals import signals
from envelope.runtime.stderr import tell
from envelope.runtime.stdout import flush_or_discard
from envelope.service import EnvelopeService

_log = Logger(namespace="envelope")


class Options(ServiceOptions):
    """The service's options, with errors on one line of standard error and exit status 1.

    twistd itself answers a `UsageError` with the whole help on standard output.
    """

    def opt_help(self) -> NoReturn:
        """Print this help and exit."""
        try:
            print(self, flush=True)  # noqa: T201
        except OSError as error:
            flush_or_discard()
            if not isinstance(error, BrokenPipeError):
                print("envelope:", error.strerror, file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from None
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """See `usage.Options`; raise `SystemExit` for wrong options."""
        untyped: Any = super()
        try:
            untyped.parseOptions(options)
            if self.parent is not None:
                service_log.choose(self.parent, self.config.log_format)
        except usage.UsageError as error:
            tell(" ".join(str(error).split()))
            raise SystemExit(1) from None


def makeService(options: Options) -> EnvelopeService:
    """The service that twistd is to run; an error is one line on standard error and status 1."""
    signals.handle_all()
    report = report_for(options.parent)
    from twisted.internet import reactor

    environ = dict(os.environ)
    keep_memory_private()
    use_monotonic_clock(reactor)
    spawn_cheaply(reactor)
    try:
        preflight.check(options.config, environ)
        service = EnvelopeService(reactor, options.config, environ, report)
    except preflight.StartError as error:
        tell(str(error))
        raise SystemExit(1) from None
    _log.info("envelope {version}", version=__version__)
    # Only now are all forks done.
    reactor.callWhenRunning(service_log.start)
    signals.begin()
    return service
