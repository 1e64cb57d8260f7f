"""Listeners over the network: which families they serve, and whom their clients are taken for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.end_to_end.harness import every_kind
from tests.end_to_end.test_operation import get

pytestmark = pytest.mark.kernel

SIDECAR = Path(__file__).parents[2] / "deploy" / "kubernetes" / "guard" / "sidecar.yaml"


def test_probes_of_the_manifest_are_answered_over_both_families(rig) -> None:
    """Also on a host that has IPv6 addresses alone."""
    rig.lab.host.ip("address flush dev lo scope host", "address add ::1/128 dev lo")
    (admin,) = re.findall(r'name: ENVELOPE_ADMIN, value: "(\S+)"', SIDECAR.read_text())
    rig.start("--listen=:4443", f"--admin={admin}", "--status=none")
    assert get(rig, "http://[::1]:9990/readyz")[0] == 200
    rig.lab.host.ip("address add 127.0.0.1/8 dev lo")
    assert get(rig, "http://127.0.0.1:9990/readyz")[0] == 200
    for to in (rig.lab.host.address4, rig.lab.host.address6):
        client = rig.client(rig.token(), to=to, port=4443)
        assert client.event()["status"] == 101
        client.tell("close")
        assert client.event()["code"] == 1000


def test_one_port_may_be_listened_on_in_each_family(rig) -> None:
    rig.start("--listen=0.0.0.0:8880", "--listen=[::]:8880", "--max-clients=2")
    for to in (rig.lab.host.address4, rig.lab.host.address6):
        assert rig.client(rig.token(), to=to).event()["status"] == 101


def test_an_endpoint_may_name_its_interface_before_its_port(rig) -> None:
    """Its port is opened in the rules, as every port of the service."""
    address = rig.lab.host.address4
    rig.start(f"--listen=tcp:interface={address}:port=8881", "--allow=none")
    client = rig.client(rig.token(), port=8881)
    assert client.event()["status"] == 101
    client.tell("close")
    assert client.event()["code"] == 1000


@every_kind
@pytest.mark.parametrize("where", ["127.0.0.1", "::1", "address4", "address6"])
def test_a_client_on_this_host_gets_no_grant(rig, where: str) -> None:
    """A TLS proxy on this host that sends no PROXY header looks like this."""
    service = rig.start()
    to = getattr(rig.lab.host, where, where)
    answer = rig.client(rig.token(), host=rig.lab.host, to=to).event()
    assert answer["status"] == 400
    service.until(rf"refused a client: its address is {to}, this host's own; .* haproxy: before")
    assert not rig.grants()
    assert rig.client(rig.token()).event()["status"] == 101


@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.1", "0.0.0.0", "224.0.0.1"])
def test_a_proxy_header_with_an_address_that_is_no_clients_gets_no_grant(rig, address) -> None:
    rig.start("--listen=haproxy:tcp:8880")
    header = f"PROXY TCP4 {address} 192.0.2.1 50000 443\r\n".encode()
    assert rig.client(rig.token(), before=header).event()["status"] == 400
    assert not rig.grants()
