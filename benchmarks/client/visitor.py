"""One client: connects, speaks TLS, sends a request, is let in, and leaves; never blocks.

It costs less than the service, so that the service is what is measured: one epoll for all clients,
OpenSSL directly on the socket, and no parsing but of the status line and the close frame.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
_CLOSE_OPCODE = 0x88
# A masked close frame with code 1000 (RFC 6455 section 5.5.1); the mask is all zeros.
_CLOSE_FRAME = b"\x88\x82\0\0\0\0\x03\xe8"
_REQUEST = (
    "GET /v0/envelope/access?access_token={token} HTTP/1.1\r\nHost: envelope.example\r\n"
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def tls_context() -> ssl.SSLContext:
    """A TLS context that accepts any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


class Visitor:
    """One visit. Times are `time.perf_counter` seconds; `fault` is the text of an error, or empty.

    `on_step` is called when the session opens, and when the connection is closed.
    """

    def __init__(
        self,
        epoll: select.epoll,
        context: ssl.SSLContext,
        token: str,
        on_step: Callable[[Visitor], None],
    ) -> None:
        self._epoll = epoll
        self._context = context
        self._token = token
        self._on_step = on_step
        self._step: Callable[[], None] = self._connected
        self._received = b""
        self.began = self.opened = self.left = self.ended = 0.0
        self.is_open = False
        self.fault = ""

    def start(self, source: str, target: tuple[str, int]) -> int:
        """Start to connect from `source`; returns the descriptor that the epoll will report."""
        self.source = source
        raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.bind((source, 0))
        self.began = time.perf_counter()
        raw.connect_ex(target)
        self._raw = raw
        self._sock: ssl.SSLSocket | None = None
        self.fd = raw.fileno()
        self._epoll.register(self.fd, WRITE)
        return self.fd

    def ready(self) -> None:
        """To be called when the epoll reports the socket as ready."""
        try:
            self._step()
        except ssl.SSLWantReadError:
            self._epoll.modify(self.fd, READ)
        except ssl.SSLWantWriteError:
            self._epoll.modify(self.fd, WRITE)
        except OSError as error:
            self._over(f"{type(error).__name__} {error.errno or ''}".strip())

    def leave(self) -> None:
        """Send the close frame; the visit ends with its answer."""
        assert self._sock is not None
        self.left = time.perf_counter()
        try:
            self._sock.send(_CLOSE_FRAME)
        except OSError as error:
            self._over(f"{type(error).__name__} at the end")

    def drop(self) -> None:
        """Close the socket without a close frame."""
        self._over("")

    def _connected(self) -> None:
        error = self._raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "connect")
        self._sock = self._context.wrap_socket(self._raw, do_handshake_on_connect=False)
        self._step = self._shake_hands
        self._shake_hands()

    def _shake_hands(self) -> None:
        assert self._sock is not None
        self._sock.do_handshake()
        self._epoll.modify(self.fd, READ)
        self._step = self._read_answer
        self._sock.send(_REQUEST.format(token=self._token).encode())

    def _read_answer(self) -> None:
        assert self._sock is not None
        more = self._sock.recv(4096)
        self._received += more
        if not more:
            self._over("hung up before the answer")
        elif b"\r\n\r\n" in self._received:
            status = self._received[9:12]
            if status != b"101":
                self._over(f"answered {status.decode('latin-1')}")
                return
            self.opened = time.perf_counter()
            self.is_open = True
            self._step, self._received = self._read_end, b""
            self._on_step(self)

    def _read_end(self) -> None:
        assert self._sock is not None
        more = self._sock.recv(4096)
        if not more:
            self._over("" if self.left else "hung up on")
        elif more[0] == _CLOSE_OPCODE:
            self._over("" if self.left else "closed by the service")

    def _over(self, fault: str) -> None:
        self.ended = time.perf_counter()
        self.is_open = False
        self.fault = fault
        self._epoll.unregister(self.fd)
        (self._sock or self._raw).close()
        self._on_step(self)
