"""The exit status: 0 after a clean stop, 1 after a failed start or an unclean stop.

twistd by itself exits with 0 even if a service fails to start, and is killed by SIGTERM instead of
exiting after it. Scripts of operators need the opposite.
"""

from __future__ import annotations

import atexit
import os
import sys

from envelope.runtime.background import StartReport
from envelope.runtime.internals import require

require(atexit, "_run_exitfuncs")


class ExitStatus:
    """The status that the process exits with; once set to 1, it replaces twistd's."""

    def __init__(self, report: StartReport) -> None:
        self._report = report
        self._armed = False

    def fail(self, message: str) -> None:
        """Exit with status 1 in the end, and write why, in one line, to standard error.

        In the background standard error leads nowhere; the start report carries the line too.
        """
        os.write(2, f"envelope: {message}\n".encode())
        self._report.failed(message)
        if not self._armed:
            self._armed = True
            atexit.register(self._leave)

    def _leave(self) -> None:
        # The other exit functions run first, because the process ends here.
        atexit.unregister(self._leave)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(1)
