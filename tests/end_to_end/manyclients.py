"""Many clients, as one program on the lab's client host."""

from __future__ import annotations

import json
import subprocess

from tests.end_to_end.harness import BARE_PYTHON, HERE, PATH, Lines, Rig


class ManyClients(Lines):
    """Clients that connect, stay for a while and leave (see `manyclientsprogram`).

    `addresses` client addresses of each family are added to the client host. `stay` is the shortest
    and the longest visit, in seconds.
    """

    def __init__(self, rig: Rig, token: str, clients: int, stay: tuple[float, float],
                 tls: bool, addresses: int) -> None:
        host, client = rig.lab.host, rig.lab.client()
        pairs = []
        for n in range(addresses):
            for mine, theirs in ((f"203.0.113.{100 + n}", host.address4),
                                 (f"2001:db8::{100 + n}", host.address6)):
                client.add_address(mine)
                pairs.append((mine, theirs))
        orders = {"port": 8880, "tls": tls, "clients": clients, "stay": stay,
                  "path": f"{PATH}?access_token={token}", "pairs": pairs}
        self._program = client.popen(
            [*BARE_PYTHON, HERE / "manyclientsprogram.py", json.dumps(orders)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        super().__init__(self._program)

    def tell(self, word: str) -> None:
        """Send an order, without waiting."""
        assert self._program.stdin is not None
        self._program.stdin.write(word + "\n")

    def heard(self, word: str) -> dict[str, int]:
        """Wait until the program reports `word`; returns its counts of what happened."""
        while (line := self.next()) is not None:
            said = json.loads(line)
            if said["said"] == word:
                return dict(said["happened"])
        raise AssertionError("the program has ended")

    def close(self) -> None:
        """Kill the program."""
        self._program.kill()
        self._program.wait()
        self.reader.join()
        for pipe in (self._program.stdin, self._program.stdout):
            pipe.close()
