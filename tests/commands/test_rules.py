"""`envelope rules` opens the ports that a start with the same options would listen on."""

from __future__ import annotations

import re

import pytest

from envelope.commands import main

TOKENS = ["--verify-key=/keys/one.pub", "--machine=m", "--subject=s", "--device=lo"]
# How each backend writes that a TCP port is open to everyone.
OPEN = {
    "iptables": re.compile(r"^-A ENVELOPE -p tcp -m tcp --dport (\d+) -j ACCEPT$", re.MULTILINE),
    "nftables": re.compile(r"^\t\ttcp dport (\S+) accept$", re.MULTILINE),
}
COMMENT = "# the port of --listen={} is known once the service listens\n"


def rules(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["rules", *TOKENS, *options]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


@pytest.mark.parametrize("backend", OPEN)
@pytest.mark.parametrize(("listen", "ports"), [
    ([], ["8880"]),
    ([":8881"], ["8881"]),
    (["[::1]:8880"], ["8880"]),
    (["127.0.0.1:8880", "[::1]:8880"], ["8880"]),
    (["host.example:8880"], ["8880"]),
    (["tcp:8881:interface=127.0.0.1"], ["8881"]),
    (["tcp:interface=127.0.0.1:port=8881"], ["8881"]),
    ([r"tcp6:port=8880:interface=\:\:1"], ["8880"]),
    (["haproxy:tcp:8880:interface=10.0.0.1"], ["8880"]),
    ([r"haproxy:tcp6:port=8880:interface=\:\:1"], ["8880"]),
    (["haproxy:unix:/run/envelope.socket"], []),
    ([":443", "haproxy:unix:/run/envelope.socket", "tcp:80"], ["80", "443"]),
])
def test_every_port_of_a_listener_is_open(
    capsys: pytest.CaptureFixture[str], backend: str, listen: list[str], ports: list[str]
) -> None:
    printed = rules(capsys, f"--firewall={backend}", *(f"--listen={text}" for text in listen))
    # iptables has a table for each address family.
    times = 2 if backend == "iptables" else 1
    assert OPEN[backend].findall(printed) == ports * times
    assert "once the service listens" not in printed


@pytest.mark.parametrize("backend", OPEN)
@pytest.mark.parametrize("text", [
    ":0", "tcp:0", "systemd:domain=INET6:index=0", "haproxy:systemd:domain=INET:index=0",
])
def test_a_port_that_is_not_known_yet_is_a_comment(
    capsys: pytest.CaptureFixture[str], backend: str, text: str
) -> None:
    printed = rules(capsys, f"--firewall={backend}", f"--listen={text}")
    assert printed.startswith(COMMENT.format(text))
    assert OPEN[backend].findall(printed) == []


@pytest.mark.parametrize("text", ["unix:/run/envelope.socket", ":8880"])
def test_without_a_firewall_there_are_no_rules(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    printed = rules(capsys, "--firewall=none", f"--listen={text}")
    assert printed == "# the firewall is not managed: no rules\n"


def test_a_unix_socket_is_refused_as_at_a_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", *TOKENS, "--listen=unix:/run/envelope.socket"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("envelope rules: --listen=unix:/run/envelope.socket: ")


def test_options_come_from_the_environment_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVELOPE_LISTEN", r":8881,haproxy:tcp:8882:interface=10.0.0.1")
    assert OPEN["nftables"].findall(rules(capsys, "--firewall=nftables")) == ["8881", "8882"]


@pytest.mark.parametrize(("backend", "marker"), [
    ("iptables", "# ENVELOPE-WAS-LOOSE is added"), ("nftables", "# an empty chain was_loose is"),
])
def test_what_only_the_kernel_tells_is_a_comment(
    capsys: pytest.CaptureFixture[str], backend: str, marker: str
) -> None:
    assert marker in rules(capsys, f"--firewall={backend}")
    assert marker not in rules(capsys, f"--firewall={backend}", "--established=keep")
    assert marker not in rules(capsys, f"--firewall={backend}", "--baseline=operator")
