"""Jobs done by a page in Chromium; see `common`."""

import queue
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import common

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.support.browser import browser, trusting

API = (Path(__file__).parent / "websocketapi.js").read_text()
PAGE = f"""<!doctype html><script>{API}
const told = [];
function work(job) {{ hold(job, (...words) => told.push(words)); }}
</script>"""
# The server's own certificate.
LEAF = Path(common.AUTHORITY).with_name("leaf.pem")


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            waiting.put(line.rstrip("\n"))
        waiting.put(None)

    threading.Thread(target=read, daemon=True).start()
    # Chromium lets only pages from this machine connect to it; about:blank is none.
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with browser(trusting(LEAF)) as driver:
        driver.get(f"http://127.0.0.1:{server.server_address[1]}/")
        common.tell("ready", driver.capabilities["browserVersion"])
        while True:
            # What it has to tell is asked for, ten times a second.
            with suppress(queue.Empty):
                if (line := waiting.get(timeout=0.1)) is None:
                    return
                driver.execute_script("work(arguments[0])", line.split("\t"))
            for words in driver.execute_script("return told.splice(0)"):
                common.tell(*map(str, words))


main()
