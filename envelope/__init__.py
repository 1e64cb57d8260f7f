"""envelope opens a host's firewall for one authorised client at a time.

A client asks over a WebSocket with an access token; while it holds the socket, and until its
deadline, the kernel lets its network in. Read in the order a request travels: `front` (HTTP),
`admission` and `tokens` (may it come in, until when), `sessions` (who is in), `firewall` (the
kernel's rules), `websocket` (the held socket); `service` wires them; `options` says what can be
set. `docs/architecture.md` has the picture.
"""

from envelope._version import __version__

__all__ = ["__version__"]
