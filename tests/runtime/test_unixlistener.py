"""The control socket's file: its mode, stale and live sockets of others, its end."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from envelope.runtime.unixlistener import LONGEST_PATH, SocketRefused, UnixListener
from tests.support.unprivileged import as_nobody, public_folder


class Heard(Factory):
    """Answers in capital letters; and fires `gone` when the connection has ended."""

    noisy = False

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()

    def buildProtocol(self, addr: object) -> Protocol:
        protocol = Protocol()

        def answer(data: bytes) -> None:
            protocol.transport.write(data.upper())
            protocol.transport.loseConnection()

        protocol.dataReceived = answer
        protocol.connectionLost = lambda _: self.gone.callback(None)
        return protocol


SHUT = """
import sys
from pathlib import Path
from twisted.internet import reactor
from envelope.config import Config
from envelope.preflight.ports import find_control
from envelope.runtime.unixlistener import SocketRefused, UnixListener
path = Path(sys.argv[1])
try:
    UnixListener(reactor, path)
except SocketRefused as error:
    print(error)
print(*find_control(Config(control=path), {}))
"""


def refusal(path: Path) -> str:
    """Why no socket can be opened at `path`."""
    with pytest.raises(SocketRefused) as caught:
        UnixListener(reactor, path)
    return str(caught.value)


@pytest_twisted.ensureDeferred
async def test_it_is_its_owners_alone_and_goes_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "run" / "envelope" / "control"
    listener = UnixListener(reactor, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.is_socket()
    factory = Heard()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))  # before it accepts
        peer.sendall(b"hello")
        listener.start(factory)
        await factory.gone
        assert peer.recv(9) == b"HELLO"
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_the_umask_is_as_before(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        listener = UnixListener(reactor, tmp_path / "control")
        listener.close()
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        assert "another running service" in refusal(path)
        fillers = []
        for _ in range(2):
            filler = socket.socket(socket.AF_UNIX)
            filler.setblocking(False)
            filler.connect_ex(str(path))
            fillers.append(filler)
        assert "another running service" in refusal(path)  # its backlog is full
        for filler in fillers:
            filler.close()
    assert path.exists()
    listener = UnixListener(reactor, path)
    listener.close()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_what_is_not_a_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "control"
    if kind == "file":
        path.write_text("precious")
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
    assert "something else than a socket" in refusal(path)
    assert path.is_symlink() or path.exists()


def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control"
    first = UnixListener(reactor, path)
    path.unlink()
    second = UnixListener(reactor, path)
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()


def test_a_folder_that_others_use_stays(tmp_path: Path) -> None:
    path = tmp_path / "made" / "control"
    listener = UnixListener(reactor, path)
    (tmp_path / "made" / "twistd.pid").touch()
    listener.close()
    assert (tmp_path / "made").exists()


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    long = tmp_path / ("x" * LONGEST_PATH)
    assert "more than 107 bytes" in refusal(long)
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file" / "control") == "not a directory"
    assert refusal(tmp_path / "file" / "below" / "control") == "not a directory"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.process
def test_a_folder_that_may_not_be_looked_into() -> None:
    """A start is refused for it, and `envelope check` says why."""
    with public_folder() as folder:
        (folder / "shut").mkdir(0o700)
        command = [*as_nobody(), sys.executable, "-c", SHUT, str(folder / "shut/new/control")]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        refused, found = told.splitlines()
        assert refused == "permission denied"
        assert f"no file can be made in {folder}/shut" in found
