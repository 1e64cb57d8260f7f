"""What twistd runs: the options as twistd takes them, and the service made from them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from twisted.logger import Logger
from twisted.python import usage

from envelope._version import __version__
from envelope.config.options import ServiceOptions
from envelope.preflight import check_login
from envelope.runtime import descriptors
from envelope.runtime.background import report_for
from envelope.runtime.capabilities import keep_memory_private
from envelope.runtime.exitstatus import end_at_once_on_ctrl_c
from envelope.runtime.reactor import count_monotonically, spawn_cheaply
from envelope.runtime.stdout import settle_output
from envelope.service import EnvelopeService, StartError

_log = Logger(namespace="envelope")


class Options(ServiceOptions):
    """The same for twistd, which answers a `UsageError` with the whole help on standard output.

    Here it is one line on standard error and exit status 1.
    """

    def opt_help(self) -> NoReturn:
        """Display this help and exit."""
        try:
            print(self, flush=True)  # noqa: T201
        except OSError as error:
            settle_output()
            if not isinstance(error, BrokenPipeError):
                print("envelope:", error.strerror, file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from None
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """See `usage.Options`."""
        untyped: Any = super()
        try:
            untyped.parseOptions(options)
            if self.config.log_format == "json":
                from envelope.runtime.jsonlog import json_log

                json_log.choose(self.parent)
        except usage.UsageError as error:
            print("envelope:", " ".join(str(error).split()), file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from None


def makeService(options: Options) -> EnvelopeService:
    """Build the service that twistd runs; whatever is wrong is one line and exit status 1."""
    end_at_once_on_ctrl_c()
    report = report_for(options.parent)
    from twisted.internet import reactor

    environ = dict(os.environ)
    keep_memory_private()
    count_monotonically(reactor)
    spawn_cheaply(reactor)
    try:
        if message := check_login(options.config, environ):
            raise StartError(message)
        descriptors.ensure(options.config)
        service = EnvelopeService(reactor, options.config, environ, report)
    except (StartError, descriptors.TooFewDescriptors) as error:
        sys.stderr.write(f"envelope: {error}\n")
        raise SystemExit(1) from None
    _log.info("envelope {version}", version=__version__)
    return service
