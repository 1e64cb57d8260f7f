"""One host of a lab: namespaces that live as long as a process that holds them.

The holder waits for the end of its standard input: however we end, `kill -9` included, the kernel
closes the pipe, the holder leaves and takes the host with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

# Ordinary users on Debian have no sbin on their PATH.
SEARCH_PATH = os.pathsep.join(
    filter(None, (os.environ.get("PATH", os.defpath), "/usr/local/sbin:/usr/sbin:/sbin"))
)

_HOLD = """
case $1 in *m*)
    mount -t tmpfs -o mode=755 tmpfs /run || exit 1
    # Shows this host's devices; refused in some containers.
    mount -t sysfs sysfs /sys 2>/dev/null
esac
ip link set lo up || exit 1
echo ready
read -r _
"""

_UNTIL_WE_END = ("setpriv", "--pdeathsig", "KILL", "--")

# setns() forgets the working directory. And whoever asked for this may have died before the death
# signal was set.
_ENTER = '[ "$PPID" = "$1" ] && cd "$2" && shift 2 && exec "$@"'


class LabUnavailable(Exception):
    """This machine lets us make no network namespaces; the text says why, in one line."""


def search_env(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """A copy of `env` (default: ours) whose PATH also finds what lives in sbin."""
    return {**(os.environ if env is None else env), "PATH": SEARCH_PATH}


def find_tool(name: str) -> str:
    """The absolute path of a system tool, sbin included; `LabUnavailable` without it."""
    found = shutil.which(name, path=SEARCH_PATH)
    if found is None:
        raise LabUnavailable(f"{name} is not installed (packages iproute2, util-linux)")
    return found


class Host:
    """One network stack. Its commands see its devices, its rules and its `/run`, our files."""

    def __init__(self, name: str, holder: subprocess.Popen[str], enter: tuple[str, ...]) -> None:
        self.name = name
        self.device = "lo"
        self.addresses: list[IPv4Address | IPv6Address] = []
        self._holder = holder
        self._enter = enter

    @classmethod
    def start(cls, name: str, way: str, within: Host | None = None) -> Host:
        """Start a holder, in the user namespace of `within` if there is one."""
        user = within._enter_user() if within else ()
        unshare = find_tool("unshare")
        # A user namespace first, and the rest within: what /proc/net shows of a network belongs
        # to root as known when that was made, and iptables-legacy-save has to read it.
        ways = ("-Ur", way.replace("Ur", "")) if "U" in way else (way,)
        inside = [word for each in ways for word in (unshare, each)]
        command = [*user, *inside, "sh", "-c", _HOLD, "sh", way]
        holder = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=search_env(),
            start_new_session=True,  # Ctrl-C is for us; we tell the holder
        )
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            _, complaint = holder.communicate()
            lines = complaint.strip().splitlines() or ["the holder ended without a word"]
            raise LabUnavailable(lines[-1])
        own_user = within._own_user if within else "U" in way
        user = ("-U", "--preserve-credentials") if own_user else ()
        enter = (find_tool("nsenter"), "-t", str(holder.pid), *user, "-n", "-m", "-r", "-w", "--")
        return cls(name, holder, enter)

    @property
    def _own_user(self) -> bool:
        return "-U" in self._enter

    def _enter_user(self) -> tuple[str, ...]:
        if not self._own_user:
            return ()
        pid = str(self._holder.pid)
        return (find_tool("nsenter"), "-t", pid, "-U", "--preserve-credentials", "--")

    @property
    def pid(self) -> int:
        """The holder's process id: names this host's namespaces under `/proc`."""
        return self._holder.pid

    @property
    def address4(self) -> str:
        """The first IPv4 address."""
        return next(str(address) for address in self.addresses if address.version == 4)

    @property
    def address6(self) -> str:
        """The first IPv6 address."""
        return next(str(address) for address in self.addresses if address.version == 6)

    def argv(self, argv: Sequence[str | Path], cwd: str | Path | None = None) -> list[str]:
        """`argv`, to be run on this host: a child that we spawn, by whatever means.

        The child's pid is the program's own. The program is killed when the thread that spawned
        it ends, so that none is left behind.
        """
        where = os.fspath(cwd or Path.cwd())
        words = [str(os.getpid()), where, *(os.fspath(word) for word in argv)]
        return [*self._enter, *_UNTIL_WE_END, "sh", "-c", _ENTER, "sh", *words]

    def run(self, argv: Sequence[str | Path], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run to the end, as `subprocess.run`: as text and captured, unless told otherwise."""
        if "stdout" not in kwargs and "stderr" not in kwargs:
            kwargs.setdefault("capture_output", True)
        kwargs.setdefault("text", True)
        if "input" not in kwargs:
            kwargs.setdefault("stdin", subprocess.DEVNULL)
        kwargs["env"] = search_env(kwargs.get("env"))
        return subprocess.run(self.argv(argv, kwargs.pop("cwd", None)), **kwargs)  # noqa: S603

    def popen(self, argv: Sequence[str | Path], **kwargs: Any) -> subprocess.Popen[Any]:
        """Start, as `subprocess.Popen`; whatever still runs when the lab closes is killed."""
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        kwargs["env"] = search_env(kwargs.get("env"))
        return subprocess.Popen(self.argv(argv, kwargs.pop("cwd", None)), **kwargs)  # noqa: S603

    def ip(self, *lines: str) -> None:
        """Feed lines to `ip -batch`, all in one process; raise `LabUnavailable` if it objects."""
        done = self.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n")
        if done.returncode:
            raise LabUnavailable(f"ip on {self.name}: {done.stderr.strip().splitlines()[0]}")

    def add_address(self, address: str) -> None:
        """Give this host one more address on its network, to be one more client with."""
        self.addresses.append(ip_address(address))
        self.ip(self._address_line(self.addresses[-1]))

    def _address_line(self, address: IPv4Address | IPv6Address) -> str:
        length = "24" if address.version == 4 else "64 nodad"
        return f"address replace {address}/{length} dev {self.device}"

    def plug_in(self, device: str, *addresses: str) -> None:
        """Bring `device` up with `addresses`."""
        self.device = device
        self.addresses = [ip_address(address) for address in addresses]
        self.link_up()

    def link_up(self) -> None:
        """Bring the device up; IPv6 forgets its addresses when a link goes down, so all of them."""
        # Link-local addresses are of no use here and would need duplicate detection.
        self.ip(
            f"link set {self.device} addrgenmode none up",
            *(self._address_line(address) for address in self.addresses),
        )

    def link_down(self) -> None:
        """Take the device down: nothing goes in or out, and nobody is told."""
        self.ip(f"link set {self.device} down")

    def close(self) -> None:
        """Kill what runs here, and let the namespaces go."""
        for pid in self._inhabitants():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._holder.communicate()

    def _inhabitants(self) -> list[int]:
        """Processes in this host's network, the holder aside."""
        ours = os.readlink(f"/proc/{self.pid}/ns/net")
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and entry.name != str(self.pid):
                with suppress(OSError):
                    if os.readlink(entry / "ns/net") == ours:
                        found.append(int(entry.name))
        return found
