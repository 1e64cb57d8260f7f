"""The exit status: 0 after a clean stop, 1 after a failed start or an unclean stop.

twistd by itself exits with 0 even if a service fails to start, and is killed by SIGTERM instead of
exiting after it. Scripts of operators need the opposite.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from envelope.runtime.background import StartReport
from envelope.runtime.internals import require
from envelope.runtime.servicelog import service_log
from envelope.runtime.stderr import tell

require(atexit, "_run_exitfuncs")

_log = Logger(namespace="envelope")


class ExitStatus:
    """The status that the process exits with; once set to 1, it replaces twistd's."""

    def __init__(self, report: StartReport) -> None:
        self._report = report
        self._armed = False

    def fail(self, message: str) -> None:
        """Exit with status 1 in the end, and write why, in one line, to standard error.

        In the background standard error leads nowhere; the start report carries the line too.
        """
        tell(message)
        self._report.failed(message)
        if not self._armed:
            self._armed = True
            atexit.register(self._leave)

    async def attempt(self, step: Callable[[], object], expected: type[Exception]) -> None:
        """Do one step of a stop. If it fails, the status is 1; the other steps can still be done.

        An `expected` error says why in its text; of any other the log has the traceback.
        """
        try:
            await maybeDeferred(step)
        except expected as error:
            _log.error("{error}", error=str(error))
            self.fail(service_log.masked(str(error)))
        except Exception:
            _log.failure("a step of the stop failed unexpectedly")
            self.fail("a step of the stop failed unexpectedly; the log has the traceback")

    def _leave(self) -> None:
        # The other exit functions run first, because the process ends here.
        atexit.unregister(self._leave)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(1)
