"""Every signal that can end a process, and what this one does at it.

The handlers stand from the moment that twistd imports the plugin. To process 1 of a PID namespace,
such as a container's, the kernel delivers no signal that has no handler (pid_namespaces(7)): a stop
that is asked for before that moment is lost there, unless the signal is blocked until then.

See signal(7). Importing this module must stay cheap.
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

_log = Logger(namespace="envelope")


class Answer(Enum):
    """What a signal leads to."""

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
    """The process's handlers, and the signals that came before the service could answer them."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._early: list[int] = []
        self._nothing_begun = True
        self._deliver: Callable[[int], object] | None = None

    def handle_all(self) -> None:
        """Install the handlers; call it as early as possible, and again at no cost.

        A mask that was inherited is emptied: what came while a signal was blocked comes now.
        """
        if self._before:
            return
        for number, answer in ANSWERS.items():
            if answer is not Answer.DEFAULT:
                handler = signal.SIG_IGN if answer is Answer.IGNORE else self._handle
                self._before[number] = signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def give_back(self) -> None:
        """Remove the handlers, in a process that only waits for another.

        Python's own handler of SIGINT is not put back: its KeyboardInterrupt would be a traceback.
        """
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if number == signal.SIGINT else handler)
        self._before.clear()

    def begin(self) -> None:
        """From now on a stop is not an exit at once: it waits for `attend`."""
        self._nothing_begun = False

    def attend(self, reactor: Any, actions: Mapping[Answer, Callable[[], object]]) -> list[int]:
        """Answer signals, those that came before too, in the reactor's own turns.

        A stop is `reactor.stop`, `actions` are the others. Returns a list to which each signal that
        asks for a stop is added when it comes.

        Twisted installs its methods `sigTerm` and `sigInt` when the reactor starts, and ends the
        process by the signal; they are replaced, so that no moment is without our handlers.
        """
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
            # Imports and files that are read may take long; there is nothing to undo.
            os._exit(0)
        else:
            self._early.append(number)


def _stop(reactor: Any) -> None:
    # A second SIGTERM while stopping asks for what is being done already.
    with suppress(ReactorNotRunning):
        reactor.stop()


def _note(number: int) -> None:
    _log.info("{signal} has no effect", signal=name_of(number))


signals: Final = Signals()
