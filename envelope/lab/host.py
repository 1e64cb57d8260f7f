"""One host of a lab: namespaces that exist as long as a process, the holder, is in them.

The holder waits for the end of its standard input. When this process ends, even by `kill -9`, the
kernel closes the pipe, the holder exits, and the kernel removes the namespaces.
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

# On Debian, the PATH of an ordinary user has no sbin folders.
SEARCH_PATH = os.pathsep.join(
    filter(None, (os.environ.get("PATH", os.defpath), "/usr/local/sbin:/usr/sbin:/sbin"))
)

_HOLD = """
case $1 in *m*)
    mount -t tmpfs -o mode=755 tmpfs /run || exit 1
    # So that /sys/class/net shows the devices of this host. Some containers do not permit it.
    mount -t sysfs sysfs /sys 2>/dev/null
esac
ip link set lo up || exit 1
echo ready
read -r _
"""

_KILLED_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")

# setns(2) changes the working directory to /, so it is set again. The parent is compared because it
# may have died before setpriv asked for the signal.
_ENTER = '[ "$PPID" = "$1" ] && cd "$2" && shift 2 && exec "$@"'


class LabUnavailable(Exception):
    """Network namespaces cannot be made on this machine; the text is one line that says why."""


def search_env(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """A copy of `env` (by default this process' environment) with the sbin folders on PATH."""
    return {**(os.environ if env is None else env), "PATH": SEARCH_PATH}


def find_tool(name: str) -> str:
    """The absolute path of a system tool; raise `LabUnavailable` when it is not installed."""
    found = shutil.which(name, path=SEARCH_PATH)
    if found is None:
        raise LabUnavailable(f"{name} is not installed (packages iproute2, util-linux)")
    return found


class Host:
    """A network stack of its own; its programs see the machine's files, and a `/run` of its own."""

    def __init__(self, name: str, holder: subprocess.Popen[str], enter: tuple[str, ...]) -> None:
        self.name = name
        self.device = "lo"
        self.addresses: list[IPv4Address | IPv6Address] = []
        self._holder = holder
        self._enter = enter

    @classmethod
    def start(cls, name: str, flags: str, within: Host | None = None) -> Host:
        """Make a host with the namespaces that `flags` of unshare(1) ask for.

        With `within`, it shares the user namespace of that host. Raises `LabUnavailable`.
        """
        user = within._enter_user() if within else ()
        unshare = find_tool("unshare")
        # The user namespace is made first and the others inside it: the files in /proc/net belong
        # to the root user of the user namespace in which the network namespace was made, and
        # iptables-legacy-save has to read them.
        steps = ("-Ur", flags.replace("Ur", "")) if "U" in flags else (flags,)
        inside = [word for each in steps for word in (unshare, each)]
        command = [*user, *inside, "sh", "-c", _HOLD, "sh", flags]
        holder = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=search_env(),
            start_new_session=True,  # Ctrl-C must not end the holder
        )
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            _, errors = holder.communicate()
            lines = errors.strip().splitlines() or ["the holder ended without a message"]
            raise LabUnavailable(lines[-1])
        own_user = within._own_user if within else "U" in flags
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
        """The holder's process id, which names this host's namespaces in `/proc`."""
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
        """The command line that runs `argv` on this host, as a child of this process.

        The child's process id is the program's own. The kernel kills the program when the thread
        that started it ends.
        """
        where = os.fspath(cwd or Path.cwd())
        words = [str(os.getpid()), where, *(os.fspath(word) for word in argv)]
        return [*self._enter, *_KILLED_WITH_PARENT, "sh", "-c", _ENTER, "sh", *words]

    def run(self, argv: Sequence[str | Path], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, as `subprocess.run`; by default its output is captured text."""
        if "stdout" not in kwargs and "stderr" not in kwargs:
            kwargs.setdefault("capture_output", True)
        kwargs.setdefault("text", True)
        if "input" not in kwargs:
            kwargs.setdefault("stdin", subprocess.DEVNULL)
        kwargs["env"] = search_env(kwargs.get("env"))
        return subprocess.run(self.argv(argv, kwargs.pop("cwd", None)), **kwargs)  # noqa: S603

    def popen(self, argv: Sequence[str | Path], **kwargs: Any) -> subprocess.Popen[Any]:
        """Start a program, as `subprocess.Popen`; it is killed when the lab is closed."""
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        kwargs["env"] = search_env(kwargs.get("env"))
        return subprocess.Popen(self.argv(argv, kwargs.pop("cwd", None)), **kwargs)  # noqa: S603

    def ip(self, *lines: str) -> None:
        """Run lines with one `ip -batch`; raise `LabUnavailable` if one of them fails."""
        done = self.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n")
        if done.returncode:
            raise LabUnavailable(f"ip on {self.name}: {done.stderr.strip().splitlines()[0]}")

    def add_address(self, address: str) -> None:
        """Add an address to this host's device, to act as one more client."""
        self.addresses.append(ip_address(address))
        self.ip(self._address_line(self.addresses[-1]))

    def _address_line(self, address: IPv4Address | IPv6Address) -> str:
        length = "24" if address.version == 4 else "64 nodad"
        return f"address replace {address}/{length} dev {self.device}"

    def connect(self, device: str, *addresses: str) -> None:
        """Bring `device` up with `addresses`; it is this host's device from now on."""
        self.device = device
        self.addresses = [ip_address(address) for address in addresses]
        self.link_up()

    def link_up(self) -> None:
        """Bring the device up with its addresses: the kernel drops IPv6 ones with the link."""
        # Link-local addresses are not needed, and would delay the start by duplicate detection.
        self.ip(
            f"link set {self.device} addrgenmode none up",
            *(self._address_line(address) for address in self.addresses),
        )

    def link_down(self) -> None:
        """Take the device down: no packet passes it, and connections get no error."""
        self.ip(f"link set {self.device} down")

    def close(self) -> None:
        """Kill every program on this host and end the holder, so that the namespaces end."""
        for pid in self._programs():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._holder.communicate()

    def _programs(self) -> list[int]:
        """The process ids in this host's network namespace, without the holder's."""
        ours = os.readlink(f"/proc/{self.pid}/ns/net")
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and entry.name != str(self.pid):
                with suppress(OSError):
                    if os.readlink(entry / "ns/net") == ours:
                        found.append(int(entry.name))
        return found
