"""Jobs done with wscat in a terminal of its own; see `common`."""

import json
import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import common

FOLDER = Path(__file__).parents[2] / "node" / "node_modules" / "wscat"


def hold(job: common.Job) -> None:
    ours, its = pty.openpty()
    offer = [f"--subprotocol={job.protocol}"] if job.protocol else []
    command = ["node", FOLDER / "bin" / "wscat", "--no-color", "--slash", "--show-ping-pong",
               f"--ca={common.AUTHORITY}", *offer, "--connect", job.url]
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its) as child:
        os.close(its)
        follow(job, ours)
        child.kill()
    os.close(ours)


def follow(job: common.Job, terminal: int) -> None:
    """Read what it shows until it tells the end."""
    shown, end = "", None
    while True:
        if end is not None and not select.select([terminal], [], [], max(0, end - time.time()))[0]:
            os.write(terminal, b"/close 1000\n")
            end = None
            continue
        shown += os.read(terminal, 65536).decode()
        if refused := re.search(r"error: Unexpected server response: (\d+)", shown):
            job.ended(int(refused[1]))
            return
        if ended := re.search(r'Disconnected \(code: (\d+), reason: "(.*?)"\)', shown):
            job.ended(101, int(ended[1]), ended[2])
            return
        if "Connected (" in shown:
            shown = ""
            # It does not show which sub-protocol the server chose, and refuses a wrong one.
            job.opened(job.protocol)
            end = None if job.hold is None else time.time() + job.hold
        elif "< " in shown or "Received ping" in shown:
            job.noise(shown)
            shown = ""


common.in_threads(json.loads((FOLDER / "package.json").read_text())["version"], hold)
