"""A page of another origin opens an envelope in a real browser, as docs/clients.md shows."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import BARE_PYTHON, PATIENCE, Lines
from tests.end_to_end.serviceprocess import ServiceProcess
from tests.support.browser import browser, trusting
from tests.support.certificates import Authority
from tests.support.pages import all_of

FUNCTION, PROGRAM = all_of("docs/clients.md", "js")
# `seen` is what happened; `measuring` ends when the test calls `measured`.
PAGE = f"""<!doctype html><title>a page of another origin</title>
<script>
{FUNCTION}
class Seen extends Array {{
  push(...things) {{
    super.push(...things);
    dispatchEvent(new Event("seen"));
  }}
}}
const seen = new Seen();
let measured;
const measuring = new Promise((tell) => {{ measured = tell; }});
function measure(host) {{ seen.push("measures " + host); return measuring; }}
function stopMeasuring(code, reason) {{ seen.push(`${{code}} ${{reason}}`.trim()); }}
async function run(urls) {{
{PROGRAM}
}}
</script>"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the page, which a program of its own serves."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text(PAGE)
    server = Lines(subprocess.Popen(
        [*BARE_PYTHON, "-u", "-m", "http.server", "--bind=127.0.0.1", f"--directory={folder}", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    try:
        yield server.until(r"(http://\S+/)")[1]
    finally:
        server.process.kill()
        server.process.wait()
        server.reader.join()
        assert server.process.stdout is not None
        server.process.stdout.close()


class Browsing(ServiceProcess):
    """The service over TLS, and a browser that shows the page."""

    def __init__(self, folder: Path) -> None:
        self.cert, key = Authority(folder).issue("127.0.0.1", "::1")
        self.control = f"--control={folder / 'control'}"
        super().__init__(folder, self.control, "--timeout=1s", "--max-clients=2",
                         f"--cert={self.cert}", f"--key={key}", listen=(":0",), tls=False)

    def url(self, host: str = "127.0.0.1", **claims: Any) -> str:
        token = self.token(**claims).decode()
        return f"wss://{host}:{self.ports[0]}/v0/envelope/access?access_token={token}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browsing]:
    with Browsing(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="module")
def chromium(service: Browsing) -> Iterator[Any]:
    with browser(trusting(service.cert)) as driver:
        driver.set_script_timeout(PATIENCE)
        yield driver


@pytest.fixture
def page(chromium: Any, address: str) -> Any:
    """The page, freshly loaded; a page that goes away closes its connections."""
    chromium.get(address)
    return chromium


def seen(page: Any, number: int) -> list[str]:
    """What happened, once it is `number` things."""
    things: list[str] = page.execute_async_script("""
        const [number, done] = arguments;
        const look = () => seen.length < number || done([...seen]);
        addEventListener("seen", look);
        look();""", number)
    return things


def run(page: Any, *urls: str) -> None:
    page.execute_script("run(arguments[0]).catch((fault) => seen.push(fault.message))", urls)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_the_documented_page_opens_holds_and_closes(
    service: Browsing, page: Any, host: str
) -> None:
    run(page, service.url(host, exp=1), service.url(host))
    assert seen(page, 1) == [f"measures {host}"]
    assert service.connections()["session"] == 1
    page.execute_script("measured()")
    assert seen(page, 2)[1:] == ["1000"]
    service.wait_until_idle()


def test_the_deadline_is_seen(service: Browsing, page: Any) -> None:
    run(page, service.url(exp=time.time() + 1.5))
    assert seen(page, 2) == ["measures 127.0.0.1", "4000 deadline"]


def test_a_revocation_is_seen(service: Browsing, page: Any) -> None:
    run(page, service.url())
    seen(page, 1)
    subprocess.run([sys.executable, Path(sys.executable).with_name("envelope"), "revoke", "--all",
                    service.control], check=True, stdout=subprocess.DEVNULL)
    assert seen(page, 2)[1:] == ["4001 revoked"]


def test_a_page_that_is_left_gives_up_its_envelope(service: Browsing, page: Any) -> None:
    """Without `pagehide`, Chromium 156 would keep it until the deadline."""
    run(page, service.url())
    seen(page, 1)
    page.get("about:blank")
    service.wait_until_idle()


def test_a_page_does_not_learn_why_it_was_refused(service: Browsing, page: Any) -> None:
    """Neither from the socket nor with fetch; no event tells a status."""
    url = service.url(exp=1)
    run(page, url)
    assert seen(page, 1) == ["no machine has opened an envelope"]
    told = page.execute_async_script("""
        const [url, done] = arguments, told = [], socket = new WebSocket(url);
        socket.onerror = (event) => told.push(Object.keys(event).sort().join());
        socket.onclose = async (event) => {
            told.push(event.code, event.reason, event.wasClean);
            await fetch(url.replace("wss:", "https:")).catch((fault) => told.push(fault.message));
            done(told);
        };""", url)
    assert told == ["isTrusted", 1006, "", False, "Failed to fetch"]


def test_data_ends_it(service: Browsing, page: Any) -> None:
    told = page.execute_async_script("""
        const [url, done] = arguments, socket = new WebSocket(url);
        socket.onopen = () => socket.send("data");
        socket.onclose = (event) => done([socket.protocol, event.code, event.wasClean]);""",
        service.url())
    assert told == ["", 1003, True]


def test_the_service_stops(service: Browsing, page: Any) -> None:
    """The last test of this file: it stops the service that they share."""
    run(page, service.url())
    seen(page, 1)
    service.stop()
    assert seen(page, 2)[1:] == ["1001 stopping"]
