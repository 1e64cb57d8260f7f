"""Two hosts on one machine: network namespaces joined by a virtual cable.

The demo and the tests let the real service loose on real firewall rules; this is the place where
that harms nobody. Each host has its own network stack, its own netfilter and, where possible, its
own `/run` (so that `iptables-legacy` finds a lock that nobody else holds); none outlives us.

Everything blocks: building a lab takes some 50 ms, and nothing else happens in the meantime.
Needs iproute2 and util-linux; works as root, and as anyone who may make user namespaces.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from types import TracebackType

from envelope.lab.host import Host, LabUnavailable, find_tool, search_env


class NetLab:
    """A host with a public device, and clients; a context manager.

    `host` guards `device`, and `client()` is plugged into that. `client(1)` and up are plugged
    into devices of their own (`lab1`, …): neighbours on a private network. To be many clients on
    the public device, give one several addresses with `add_address`.
    """

    def __init__(self, device: str = "eth0") -> None:
        self.device = device
        self._hosts: list[Host] = []
        self._way = ""
        self._stack = ExitStack()

    @property
    def host(self) -> Host:
        """The host that the service runs on."""
        return self._hosts[0]

    def client(self, n: int = 0) -> Host:
        """The `n`-th client, made when first asked for."""
        while len(self._hosts) < n + 2:
            self._add_client(len(self._hosts) - 1)
        return self._hosts[n + 1]

    def __enter__(self) -> NetLab:
        for tool in ("ip", "mount", "setpriv"):
            find_tool(tool)
        with self._stack:
            self._hosts = [self._first_host()]
            self.client()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        self._hosts = []

    def cut_link(self, n: int = 0) -> None:
        """Pull the cable to the `n`-th client, at its end: no goodbye reaches the host."""
        self.client(n).link_down()

    def restore_link(self, n: int = 0) -> None:
        """Plug the cable in again."""
        self.client(n).link_up()

    def _first_host(self) -> Host:
        # Root may lack CAP_SYS_ADMIN, in a container: then it is as good as anyone. In a chroot it
        # has it, but no file systems of its own: /run is the machine's there.
        ways = ("-nm", "-Urnm", "-n") if os.geteuid() == 0 else ("-Urnm",)
        problems = []
        for self._way in ways:
            try:
                return self._keep(Host.start("host", self._way))
            except LabUnavailable as reason:
                problems.append(str(reason))
        raise LabUnavailable(f"no network namespaces for us here: {problems[0]}")

    def _add_client(self, n: int) -> None:
        way = self._way.replace("Ur", "")  # the user namespace is the host's
        client = self._keep(Host.start(f"client{n or ''}", way, self.host))
        device = self.device if n == 0 else f"lab{n}"
        net4 = ("203.0.113", "198.51.100", "192.0.2")[n]
        net6 = f"2001:db8:{n:x}:"
        self.host.ip(f"link add {device} type veth peer name eth0 netns {client.pid}")
        if n == 0:
            self.host.plug_in(device, f"{net4}.1", f"{net6}:1")
        else:
            self.host.ip(
                f"link set {device} addrgenmode none up",
                f"address add {net4}.1/24 dev {device}",
                f"address add {net6}:1/64 dev {device} nodad",
            )
        client.plug_in("eth0", f"{net4}.7", f"{net6}:7")
        self._hosts.append(client)

    def _keep(self, host: Host) -> Host:
        self._stack.callback(host.close)
        return host


def why_unavailable() -> str | None:
    """None if a lab can be built here, else the reason that it cannot."""
    try:
        with NetLab():
            return None
    except LabUnavailable as reason:
        return str(reason)


__all__ = ["Host", "LabUnavailable", "NetLab", "find_tool", "search_env", "why_unavailable"]
