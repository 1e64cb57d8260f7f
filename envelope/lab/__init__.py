"""Two or more hosts on one machine: network namespaces, joined by virtual cables.

The demo and the tests run the real service with real firewall rules here, without any effect on the
machine's own network. Each host has its own network stack, its own netfilter and, where possible,
its own `/run` (where the lock file of `iptables-legacy` is). All of it ends with this process.

Every call blocks; building a lab takes some 50 ms. Needs iproute2 and util-linux, and root or the
permission to make user namespaces.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from types import TracebackType

from envelope.lab.host import Host, LabUnavailable, find_tool, search_env


class NetLab:
    """A host with a public device, and its clients; a context manager.

    `client()` is connected to the host's public `device`. `client(1)` and `client(2)` are connected
    to devices of their own, `lab1` and `lab2`, as neighbours on a private network. For many clients
    on the public device, give `client()` more addresses with `add_address`. Entering raises
    `LabUnavailable` where no namespaces can be made.
    """

    def __init__(self, device: str = "eth0") -> None:
        self.device = device
        self._hosts: list[Host] = []
        self._flags = ""
        self._stack = ExitStack()

    @property
    def host(self) -> Host:
        """The host that the service runs on."""
        return self._hosts[0]

    def client(self, n: int = 0) -> Host:
        """Client number `n`, from 0 to 2; it is made at the first call."""
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
        """Cut the cable of client `n`: nothing reaches the host, not even a FIN or RST."""
        self.client(n).link_down()

    def restore_link(self, n: int = 0) -> None:
        """Connect the cable again."""
        self.client(n).link_up()

    def _first_host(self) -> Host:
        # Flags of unshare(1), the best first. Root in a container may lack CAP_SYS_ADMIN and then
        # needs a user namespace, as an ordinary user does. Root in a chroot cannot make a mount
        # namespace, and shares the machine's /run.
        choices = ("-nm", "-Urnm", "-n") if os.geteuid() == 0 else ("-Urnm",)
        problems = []
        for self._flags in choices:
            try:
                return self._keep(Host.start("host", self._flags))
            except LabUnavailable as reason:
                problems.append(str(reason))
        raise LabUnavailable(f"network namespaces cannot be made here: {problems[0]}")

    def _add_client(self, n: int) -> None:
        flags = self._flags.replace("Ur", "")  # clients share the host's user namespace
        client = self._keep(Host.start(f"client{n or ''}", flags, self.host))
        device = self.device if n == 0 else f"lab{n}"
        net4 = ("203.0.113", "198.51.100", "192.0.2")[n]
        net6 = f"2001:db8:{n:x}:"
        self.host.ip(f"link add {device} type veth peer name eth0 netns {client.pid}")
        if n == 0:
            self.host.connect(device, f"{net4}.1", f"{net6}:1")
        else:
            self.host.ip(
                f"link set {device} addrgenmode none up",
                f"address add {net4}.1/24 dev {device}",
                f"address add {net6}:1/64 dev {device} nodad",
            )
        client.connect("eth0", f"{net4}.7", f"{net6}:7")
        self._hosts.append(client)

    def _keep(self, host: Host) -> Host:
        self._stack.callback(host.close)
        return host


__all__ = ["Host", "LabUnavailable", "NetLab", "find_tool", "search_env"]
