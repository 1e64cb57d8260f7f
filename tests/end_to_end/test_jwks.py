"""The JWKS is fetched over the guarded device while the default drop is in force."""

from __future__ import annotations

import signal

import pytest

from tests.support.jwksserver import Publisher, make_key

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("family", [4, 6])
def test_keys_are_fetched_over_the_guarded_device(rig, family) -> None:
    """Answers to the host's own connections pass; connections to the host are still refused."""
    client = rig.lab.client()
    host = client.address4 if family == 4 else client.address6
    publisher = Publisher(rig.folder / "keys", host)
    old, new = make_key("old"), make_key("new")
    publisher.publish(old)
    rig.serve(9000)
    to = rig.lab.host.address4 if family == 4 else rig.lab.host.address6
    with publisher.serve(popen=client.popen):
        options = [each for each in rig.options() if not each.startswith("--verify-key")]
        service = rig.twistd(*options, *publisher.options)
        service.until("are now: old")
        service.until("ready$")
        assert not rig.reaches(9000, to)
        assert rig.client(rig.token(key=new), to=to).event()["status"] == 401
        publisher.publish(new)
        service.process.send_signal(signal.SIGHUP)
        service.until("are now: new")
        assert not rig.reaches(9000, to)
        admitted = rig.client(rig.token(key=new), to=to)
        assert admitted.event()["status"] == 101
        assert rig.reaches(9000, to)
        admitted.tell("close")
        assert admitted.event()["code"] == 1000
        assert service.stop() == 0
