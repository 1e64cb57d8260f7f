"""The command that `envelope exec` runs, and the signals that are passed on to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

# Seconds from SIGTERM to SIGKILL.
_KILL_AFTER: Final = 5.0
# si_code of a signal that the kernel sent, such as that of Ctrl-C (sigaction(2)). A terminal sends
# its signals to the command too, which is in the same group of processes.
_BY_KERNEL: Final = 0x80
_OF_A_TERMINAL: Final = frozenset({
    signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP, signal.SIGCONT, signal.SIGWINCH,
})
# All but those that cannot be taken, tell of a fault or of a child of this process, or stop it
# because it uses a terminal in the background.
_PASSED_ON: Final = signal.valid_signals() - {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS,
    signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS, signal.SIGCHLD, signal.SIGURG, signal.SIGTTIN,
    signal.SIGTTOU,
}
# Python ignores these; a command expects the default.
_RESTORED: Final = (signal.SIGPIPE, signal.SIGXFSZ)


class Signals:
    """Takes the signals of this process, and tells them to a handler in the reactor's thread.

    The handler gets the number, and whether a terminal has sent it to the command too. A thread
    waits for them, because a handler of Python's does not learn who sent a signal. Signals that the
    parent process had ignored, as `nohup` does, stay ignored. `before` is the mask to start
    children with. Create it before any thread is started: threads inherit the mask.
    """

    def __init__(self) -> None:
        taken = {each for each in _PASSED_ON if signal.getsignal(each) != signal.SIG_IGN}
        self.before = signal.pthread_sigmask(signal.SIG_BLOCK, taken)
        self._taken = taken

    def tell(self, reactor: Any, handler: Callable[[int, bool], None]) -> None:
        """Begin to tell `handler` what arrives, and has arrived since the creation."""

        def wait() -> None:
            while True:
                info = signal.sigwaitinfo(self._taken)
                by_terminal = info.si_code == _BY_KERNEL and info.si_signo in _OF_A_TERMINAL
                reactor.callFromThread(handler, info.si_signo, by_terminal)

        Thread(target=wait, name="signals", daemon=True).start()


@implementer(IReadDescriptor)
class Command:
    """A child process with this process's own standard streams.

    `ended` fires with its exit status, 128+n if signal n killed it. The creation raises `OSError`
    if the program cannot be run, or not be watched.
    """

    def __init__(
        self, reactor: Any, argv: list[str], env: Mapping[str, str], mask: set[int | signal.Signals]
    ) -> None:
        self.ended: Deferred[int] = Deferred()
        self._reactor = reactor
        self._pid = os.posix_spawnp(argv[0], argv, env, setsigmask=mask, setsigdef=_RESTORED)
        try:
            # Readable once the process has ended (pidfd_open(2), Linux 5.3).
            self._pidfd = os.pidfd_open(self._pid)
        except OSError as error:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            raise OSError(error.errno, f"cannot be watched: {error.strerror}") from None
        self._kill: Any = None
        reactor.addReader(self)

    def send(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if not self.ended.called:
            os.kill(self._pid, number)

    def terminate(self) -> None:
        """End it with SIGTERM, and with SIGKILL 5 s later."""
        if self._kill is None and not self.ended.called:
            self.send(signal.SIGTERM)
            # One that is stopped would not notice.
            self.send(signal.SIGCONT)
            self._kill = self._reactor.callLater(_KILL_AFTER, self.send, signal.SIGKILL)

    def fileno(self) -> int:
        """The descriptor that the reactor watches."""
        return self._pidfd

    def doRead(self) -> None:
        """Take the exit status."""
        self._reactor.removeReader(self)
        os.close(self._pidfd)
        _, status = os.waitpid(self._pid, 0)
        if self._kill is not None and self._kill.active():
            self._kill.cancel()
        code = os.waitstatus_to_exitcode(status)
        self.ended.callback(code if code >= 0 else 128 - code)

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "exec"

    def connectionLost(self, reason: Failure) -> None:
        """See `IReadDescriptor`; nothing else holds the descriptor."""
