"""TCP and UDP flows that are open when a grant ends."""

from __future__ import annotations

import subprocess

import pytest

from envelope.lab import Host
from tests.end_to_end.harness import BARE_PYTHON, HERE, Client, Lines, Rig, every_kind

pytestmark = pytest.mark.kernel


class Peer(Lines):
    """One end of the flows on `host`: runs `flowprogram` with these arguments."""

    def __init__(self, rig: Rig, host: Host, *words: str) -> None:
        process = host.popen([*BARE_PYTHON, HERE / "flowprogram.py", *words], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True, bufsize=1)
        super().__init__(process)
        rig.keep(self)
        assert self.next() == "up"

    def passes(self, word: str) -> bool:
        """Send the program an order; whether its packet got through, as seen from this end."""
        self.process.stdin.write(word + "\n")
        return self.next() == "True"


def enter(rig: Rig, to: str) -> Client:
    client = rig.client(rig.token(600), to=to)
    assert client.event()["status"] == 101
    return client


def leave(client: Client) -> None:
    client.tell("close")
    assert client.event()["code"] == 1000


@every_kind
@pytest.mark.parametrize("choice", ["cut", "keep"])
def test_cut_and_keep_decide_about_open_flows_when_a_grant_ends(rig, choice) -> None:
    """With `cut` no packet of a client's flow passes any more; the host's own flows go on.

    With `keep` every flow that was answered once goes on; a flow in one direction only is not
    established for the kernel. Connections to the service itself go on in both cases.
    """
    host, stranger = rig.lab.host, rig.lab.client()
    sink = Peer(rig, host, "serve")
    Peer(rig, stranger, "serve")
    service = rig.start(f"--established={choice}", "--max-clients=3")
    own = [Peer(rig, host, "flows", to) for to in (stranger.address4, stranger.address6)]
    for to in (host.address4, host.address6):
        other = host.address6 if to == host.address4 else host.address4
        client, witness = enter(rig, to), enter(rig, other)
        flows = Peer(rig, stranger, "flows", to)
        assert flows.passes("tcp")
        assert flows.passes("udp")
        assert flows.passes("send first")
        assert sink.next() == "first"
        leave(client)
        assert flows.passes("tcp") is (choice == "keep")
        assert flows.passes("udp") is (choice == "keep")
        assert not flows.passes("send refused")
        for peer in own:
            assert peer.passes("tcp")
            assert peer.passes("udp")
        witness.tell("ping")
        assert witness.event()["event"] == "frame"
        # The refused packet did not arrive: the next line is that of a packet after the new grant.
        client = enter(rig, to)
        assert flows.passes("send again")
        assert sink.next() == "again"
        leave(client)
        leave(witness)
    assert service.stop() == 0
