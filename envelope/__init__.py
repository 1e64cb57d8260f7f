"""envelope opens a host's firewall for a client that has a valid access token.

The client opens a WebSocket with its token. Until it closes the WebSocket, and at most until a
deadline, the kernel accepts packets from the client's network. docs/architecture.md shows the
packages and the way of a request through them.
"""

from envelope._version import __version__

__all__ = ["__version__"]
