"""What the process says to its parent when it ends.

twistd exits 0 whatever a service's start came to, and dies of SIGTERM by SIGTERM. An operator's
scripts need the opposite: 0 after a clean stop, 1 after a failed start or an unclean stop.
"""

from __future__ import annotations

import atexit
import os
import sys

from envelope.runtime.background import StartReport


class ExitStatus:
    """The status that the process will end with; armed once, it outlives twistd's own idea."""

    def __init__(self, report: StartReport) -> None:
        self._report = report
        self._armed = False

    def fail(self, message: str) -> None:
        """End with status 1, and say why in one line on standard error.

        In the background that leads nowhere; `report` has it for whoever waits for a start.
        """
        os.write(2, f"envelope: {message}\n".encode())
        self._report.failed(message)
        if not self._armed:
            self._armed = True
            atexit.register(self._leave)

    def _leave(self) -> None:
        # The last thing the interpreter runs: after it, the status can no longer be said.
        atexit.unregister(self._leave)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(1)
