"""What the process does at each signal (signal(7)).

The handlers are installed when twistd imports the plugin. To process 1 of a PID namespace, such as
a container's, the kernel delivers no signal without a handler (pid_namespaces(7)): there, an
earlier signal is lost, unless it is blocked until then.

Importing this module must stay cheap.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any, Final

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from envelope.runtime.internals import require_use

_log = Logger(namespace="envelope")


class Answer(Enum):
    """What the process does at a signal."""

    STOP = "a clean stop"
    RELOAD = "keys and certificate are read again"
    REOPEN = "the log file is opened again"
    NOTE = "a line in the log"
    IGNORE = "nothing"
    DEFAULT = "what the kernel does by itself"


_ROWS: Final = (
    (Answer.STOP, "SIGTERM SIGINT", "what service managers send, and Ctrl-C"),
    (Answer.STOP, "SIGQUIT", r"Ctrl-\, and some supervisors' stop; core dumps are forbidden"),
    (Answer.STOP, "SIGPWR", "power fails; LXC also asks a container's first process to end so"),
    (Answer.STOP, "SIGXCPU", "the limit of processor time; at the hard limit the kernel kills"),
    (Answer.RELOAD, "SIGHUP", "custom of daemons"),
    (Answer.REOPEN, "SIGUSR1", "what log rotation sends to daemons"),
    (Answer.NOTE, "SIGUSR2", "custom of other daemons; nothing here needs it"),
    (Answer.NOTE, "SIGALRM SIGVTALRM SIGPROF SIGIO SIGSTKFLT",
     "nothing here asks for timers or signals about descriptors, so it is a stray"),
    (Answer.IGNORE, "SIGPIPE SIGXFSZ", "the write fails with EPIPE or EFBIG, which is handled"),
    (Answer.IGNORE, "SIGTTOU", "a log on a terminal must not stop a process in the background"),
    (Answer.DEFAULT, "SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGSEGV SIGSYS",
     "the process is broken and must not go on; the rules hold as after SIGKILL"),
    (Answer.DEFAULT, "SIGKILL SIGSTOP", "no process can answer these"),
    (Answer.DEFAULT, "SIGTSTP SIGTTIN SIGCONT", "job control; grants end in the kernel meanwhile"),
    (Answer.DEFAULT, "SIGCHLD SIGURG SIGWINCH", "harmless; the reactor uses the first"),
)
_REAL_TIME: Final = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)

# By number; the reasons are in the rows above. Real-time signals are strays as SIGALRM is.
ANSWERS: Final[Mapping[int, Answer]] = {
    **{int(signal.Signals[name]): answer for answer, names, _ in _ROWS for name in names.split()},
    **dict.fromkeys(_REAL_TIME, Answer.NOTE),
}


def name_of(number: int) -> str:
    """A signal's name, such as SIGRTMIN+3."""
    if number in _REAL_TIME and number != signal.SIGRTMIN:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    return signal.Signals(number).name


class Signals:
    """The process's handlers, and the signals that arrived before the service could handle them."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._early: list[int] = []
        self._nothing_begun = True
        self._deliver: Callable[[int], object] | None = None

    def handle_all(self) -> None:
        """Install the handlers, unless that is done; call it as early as possible.

        Also unblocks all signals, so that those arrive that a parent had blocked.
        """
        if self._before:
            return
        for number, answer in ANSWERS.items():
            if answer is not Answer.DEFAULT:
                handler = signal.SIG_IGN if answer is Answer.IGNORE else self._handle
                self._before[number] = signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def give_back(self) -> None:
        """Restore the handlers that were replaced, in a process that only waits for another.

        SIGINT gets the kernel's default, because Python's own handler would print a traceback.
        """
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if number == signal.SIGINT else handler)
        self._before.clear()

    def begin(self) -> None:
        """From now on a signal to stop waits for `attend`; before, it ends the process at once."""
        self._nothing_begun = False

    def attend(self, reactor: Any, actions: Mapping[Answer, Callable[[], object]]) -> list[int]:
        """Handle signals in turns of the reactor, also those that arrived before.

        `STOP` calls `reactor.stop`, other answers their function in `actions`. Return a list to
        which each signal to stop is appended when it arrives.

        When the reactor starts, Twisted installs its methods `sigTerm` and `sigInt`, which end the
        process with the signal. They are replaced, so that our handlers are never missing.
        """
        from twisted.internet.base import ReactorBase

        require_use(ReactorBase._signalsFactory, "sigTerm", "sigInt")
        asked: list[int] = []
        everything = {Answer.STOP: partial(_stop, reactor), **actions}

        def deliver(number: int) -> None:
            answer = ANSWERS[number]
            if answer is Answer.STOP:
                asked.append(number)
            reactor.callFromThread(everything.get(answer) or partial(_note, number))

        reactor.sigTerm = reactor.sigInt = self._handle
        self.handle_all()
        self._deliver = deliver
        while self._early:
            deliver(self._early.pop(0))
        return asked

    def _handle(self, number: int, _frame: object) -> None:
        if self._deliver is not None:
            self._deliver(number)
        elif self._nothing_begun and ANSWERS[number] is Answer.STOP:
            # Imports and reading files may take long; there is nothing to undo yet.
            os._exit(0)
        else:
            self._early.append(number)


def _stop(reactor: Any) -> None:
    # A second SIGTERM arrives while the reactor stops already.
    with suppress(ReactorNotRunning):
        reactor.stop()


def _note(number: int) -> None:
    _log.info("{signal} has no effect", signal=name_of(number))


signals: Final = Signals()
