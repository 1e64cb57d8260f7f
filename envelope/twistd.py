"""What `twistd envelope` runs: its options, and the service that is made from them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from twisted.logger import Logger
from twisted.python import usage

from envelope import preflight
from envelope._version import __version__
from envelope.config.options import ServiceOptions
from envelope.config.shown import as_words, shown
from envelope.preflight.findings import StartError
from envelope.runtime.background import in_foreground, report_for
from envelope.runtime.capabilities import keep_memory_private
from envelope.runtime.lookup import abandon_lookups_at_the_end
from envelope.runtime.reactor import spawn_cheaply, use_boot_clock, wake_regularly
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
            # Twisted's other runner, twist, does not have these two options.
            if self.parent is not None and {"logger", "pidfile"} <= self.parent.keys():
                service_log.choose(
                    self.parent, self.config.log_format, self.config.log_addresses
                )
                _check_paths(self.parent)
        except usage.UsageError as error:
            tell(" ".join(str(error).split()))
            raise SystemExit(1) from None


def _check_paths(twistd_options: Mapping[str, Any]) -> None:
    """Raise `UsageError` for a path among twistd's options that it would fail at with a traceback.

    Below a `--chroot` paths mean something else, and are left to twistd.
    """
    if twistd_options["chroot"]:
        return
    folder, pid_file = twistd_options["rundir"], twistd_options["pidfile"]
    try:
        os.stat(os.path.join(folder, "."))
    except OSError as error:
        raise usage.UsageError(f"cannot enter --rundir={folder}: {error.strerror}") from None
    if not pid_file:
        return
    path = os.path.abspath(pid_file)
    try:
        if os.path.lexists(path):
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        else:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            os.unlink(path)
    except OSError as error:
        raise usage.UsageError(
            f"cannot write the pid file {path}: {error.strerror} (--pidfile= starts without one)"
        ) from None
    if (running := _running(path)) is not None:
        raise usage.UsageError(
            f"process {running} of the pid file {path} is running: stop it, or choose another file"
        )


def _running(pid_file: str) -> int | None:
    """The process that a pid file names, if it runs; twistd replaces the file if it does not."""
    try:
        with open(pid_file) as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return None
    with suppress(ProcessLookupError, OverflowError):
        with suppress(PermissionError):
            os.kill(pid, 0)
        return pid
    return None


def makeService(options: Options) -> EnvelopeService:
    """The service that twistd is to run; an error is one line on standard error and status 1."""
    signals.handle_all()
    report = report_for(options.parent)
    from twisted.internet import reactor

    environ = dict(os.environ)
    if not in_foreground(options.parent):
        # A service manager waits for the command, not for the process that it leaves behind.
        environ.pop("NOTIFY_SOCKET", None)
    keep_memory_private()
    use_boot_clock(reactor)
    wake_regularly(reactor)
    spawn_cheaply(reactor)
    abandon_lookups_at_the_end(reactor)
    try:
        preflight.check(options.config, environ)
        service = EnvelopeService(reactor, options.config, environ, report)
    except StartError as error:
        tell(str(error))
        raise SystemExit(1) from None
    _log.info("envelope {version}", event="start", version=__version__)
    _log.info(
        "options: {log_given}", event="options", options=shown(options.config),
        log_given=as_words(options.config) or "all at their defaults", log_own_address=True,
    )
    # Only now are all forks done.
    reactor.callWhenRunning(service_log.start)
    signals.begin()
    return service
