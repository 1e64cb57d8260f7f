"""The clients: how each is started, and what it needs of the machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.support.browser import NODE_MODULES

PROGRAMS = Path(__file__).parent / "programs"
# Node.js has a WebSocket of its own since 20.10; before 22 a flag switches it on.
_NODE_FLAG = "--experimental-websocket"


@dataclass(frozen=True)
class Client:
    """A client, its program's command without the authority's file, and what is special about it.

    `missing` tells what keeps it from running on this machine, or "". An `optional` one may be
    missing in CI too. One that `hides_status` does not show why it was refused; one that
    `hides_close` sends no close frame.
    """

    name: str
    command: tuple[str | Path, ...]
    missing: Callable[[], str]
    optional: bool = False
    hides_status: bool = False
    hides_close: bool = False


def _python(name: str) -> tuple[str | Path, ...]:
    return sys.executable, PROGRAMS / f"with_{name}.py"


def _without(*programs: str) -> Callable[[], str]:
    def missing() -> str:
        lacking = [name for name in programs if shutil.which(name) is None]
        return f"not installed: {', '.join(lacking)}" if lacking else ""

    return missing


def _without_module(name: str) -> Callable[[], str]:
    def missing() -> str:
        return "" if find_spec(name) else f"{name} is not installed (pip install -e '.[clients]')"

    return missing


def _without_package(name: str) -> Callable[[], str]:
    def missing() -> str:
        if (NODE_MODULES / name).exists():
            return _without("node")()
        return "the packages of tests/node are not installed (make prepare)"

    return missing


def _without_own_websocket() -> str:
    if missing := _without("node")():
        return missing
    done = subprocess.run(["node", _NODE_FLAG, "-e", "WebSocket"], capture_output=True, check=False)
    return "this Node.js has no WebSocket of its own (20.10 has)" if done.returncode else ""


def _without_browser() -> str:
    return _without("chromium", "chromedriver")() or _without_module("selenium")()


CLIENTS = (
    Client("curl", _python("curl"), _without("curl"), hides_close=True),
    Client("websockets", _python("websockets"), _without_module("websockets")),
    Client("websocket-client", _python("websocket_client"), _without_module("websocket")),
    Client("aiohttp", _python("aiohttp"), _without_module("aiohttp")),
    Client("Autobahn", _python("autobahn"), _without_module("autobahn")),
    Client("ws", ("node", PROGRAMS / "with_node.js", "ws"), _without_package("ws")),
    Client("wscat", _python("wscat"), _without_package("wscat")),
    Client("Node.js", ("node", _NODE_FLAG, "--no-warnings", PROGRAMS / "with_node.js", "own"),
           _without_own_websocket, optional=True, hides_status=True),
    Client("java.net.http", ("java", "-XX:TieredStopAtLevel=1", PROGRAMS / "WithJava.java"),
           _without("java", "javac"), optional=True),
    Client("Chromium", _python("chromium"), _without_browser, hides_status=True),
)


def environment(authority: Path) -> dict[str, str]:
    """For the programs: no proxy, no coverage (slow to start), and an authority for Node.js."""
    kept = {
        name: value for name, value in os.environ.items()
        if not re.search(r"proxy$|^COVERAGE_", name, re.IGNORECASE)
    }
    return {**kept, "NODE_EXTRA_CA_CERTS": str(authority), "TERM": "xterm"}
