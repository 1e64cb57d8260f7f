"""A measurement server that knows nothing of tokens: it sends zeros for two seconds."""

import socket
import socketserver
import time


class Measurement(socketserver.BaseRequestHandler):
    """One client."""

    def handle(self) -> None:
        """Send."""
        end = time.monotonic() + 2
        while time.monotonic() < end:
            self.request.sendall(bytes(65536))


class Server(socketserver.ThreadingTCPServer):
    """Listens on IPv4 and IPv6."""

    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


Server(("::", 5000), Measurement).serve_forever()
