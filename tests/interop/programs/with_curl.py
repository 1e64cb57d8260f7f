"""Jobs done with curl, by the command in the README; see `common`.

curl shows the bytes that the server sends after its answer, and sends none itself: it can only
disconnect.
"""

import os
import pty
import re
import select
import shlex
import subprocess
import time
import tty
from pathlib import Path

import common

README = (Path(__file__).parents[3] / "README.md").read_text().replace("\\\n", "")
COMMAND = shlex.split(re.search(r"^\$ (curl .*)$", README, re.MULTILINE)[1])
OFFER = "Sec-WebSocket-Protocol: net.measurementlab.envelope"
CLOSE = 0x88


def hold(job: common.Job) -> None:
    command = [*COMMAND[:-1], "--cacert", common.AUTHORITY]
    if not job.protocol:
        place = command.index(OFFER)
        del command[place - 1:place + 1]
    command += ["--silent", "--no-styled-output", job.url.replace("wss://", "https://")]
    # In a pipe, curl keeps the answer's head until more arrives.
    ours, its = pty.openpty()
    tty.setraw(its)
    with subprocess.Popen(command, stdout=its) as child:
        os.close(its)
        follow(job, ours, child)
    os.close(ours)


def follow(job: common.Job, terminal: int, child: subprocess.Popen[bytes]) -> None:
    """Read what it shows until it ends."""
    head = read(terminal, None, b"\r\n\r\n")
    status = int(head.split()[1])
    if status != 101:
        child.terminate()
        job.ended(status)
        return
    chosen = re.search(rb"(?im)^sec-websocket-protocol: (\S+)", head)
    job.opened(chosen[1].decode() if chosen else "")
    rest = head.partition(b"\r\n\r\n")[2] + read(terminal, job.hold, None)
    child.terminate()
    if rest and rest[0] == CLOSE:
        job.ended(101, int.from_bytes(rest[2:4]), rest[4:].decode())
    else:
        if rest:
            job.noise(repr(rest))
        job.ended(101)


def read(terminal: int, seconds: float | None, until: bytes | None) -> bytes:
    """What is shown until `until` is, the end, or for some seconds."""
    shown = b""
    end = None if seconds is None else time.time() + seconds
    while until is None or until not in shown:
        left = None if end is None else max(0, end - time.time())
        if not select.select([terminal], [], [], left)[0]:
            break
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # the program has ended
            break
    return shown


def version() -> str:
    done = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


common.in_threads(version(), hold)
