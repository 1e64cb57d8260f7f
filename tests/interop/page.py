"""The table of docs/interop.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.interop.clients import Client
from tests.interop.run import HELD, Peer

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"
_HEAD = ("client", "version", "held, then closed", "without sub-protocol", "deadline",
         "service stops", "no valid token", "no free slot")


def expected(client: Client) -> list[str]:
    """What a client sees in each case."""
    closes = "disconnected" if client.hides_close else "1000"
    refusals = ["refused", "refused"] if client.hides_status else ["401", "503"]
    return [closes, closes, "4000 deadline", "1001 stopping", *refusals]


def row(peer: Peer) -> list[str]:
    """The row of a client."""
    return [peer.client.name, peer.version, *peer.cells()]


def table(rows: Sequence[Sequence[str]]) -> str:
    """The rows under their heading."""
    lines = [_HEAD, ("---",) * len(_HEAD), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text(rows: Sequence[Sequence[str]]) -> str:
    """The whole page."""
    return f"""\
# Clients that were tried

WebSocket clients that are not ours, each over TLS with its certificate verified, over IPv4 and over
IPv6 with the same outcome. `python -m tests.interop` tries them again and writes this page;
`tests/interop` compares it with what happens, apart from the versions.

{table(rows)}

- **held, then closed**: with the sub-protocol, which the answer names, {HELD:g} s in which the
  service sends nothing, and then a close by the client. **without sub-protocol**: the same without.
- **deadline**, **service stops**: the close code and reason that the service sends.
- **no valid token**, **no free slot**: the status that the client shows. *refused*: it shows none,
  as all that have the WebSocket of browsers ([clients.md](clients.md#browsers)).
- *disconnected*: curl sends no close frame, but shows the service's in its output.
- `Node.js` is its own WebSocket, without a package; before version 22 `--experimental-websocket`
  switches it on, and a refusal is an `error` event without a `close` event. `java.net.http` is the
  JDK's.
"""


def written_rows() -> dict[str, list[str]]:
    """The rows of the page by their client's name."""
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines()
             if line.startswith("| ")]
    return {cells[0]: cells for cells in lines[2:]}
