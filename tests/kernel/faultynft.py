"""An executable in place of nft, which fails, hangs, garbles or dies on demand.

It takes the orders of `faultyiptables`, with the same meaning.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.kernel.faultyiptables import BEGINNING, POISON4, POISON6, Orders

NFT = "/usr/sbin/nft"

_NFT = BEGINNING + r"""
say = sys.stderr.buffer.raw.write

def die():
    os.kill(os.getpid(), 9)

def refuses(text):
    if told("no-counters") and b"counter;" in text:
        return "syntax error, unexpected counter"
    poison = told("poison") and (b"{poison4} " in text or b"{poison6} " in text)
    return "told to fail" if told("fail") or poison else ""

def show():
    with open(here + "/shown", "a") as file:
        file.write("x")
    if told("save-fails"):
        sys.exit("Error: told to fail")
    if told("save-garbles"):
        sys.exit(print("table inet envelope {{\n\tchain input {{ # ha") and 0)
    if told("save-truncates"):
        shown = run(real, stdout=PIPE).stdout
        sys.exit(sys.stdout.buffer.write(b"".join(shown.splitlines(True)[:3])) and 0)
    if told("save-hangs"):
        hang()
    os.execv(real[0], real)

def once():
    global transaction
    text = sys.stdin.buffer.read()
    transaction = count()
    if told("hang"):
        hang()
    if told("die-when-asked") or told("die-midway") or told("die-before-commit"):
        die()
    if refuses(text):
        sys.exit("Error: " + refuses(text))
    if told("refuse-long") and len(text) > 20000:
        sys.exit("netlink: Error: Could not process rule: Message too long")
    if told("truncate"):
        sys.exit(run(real, input=text[:len(text) // 2], stderr=DEVNULL).returncode and 0)
    status = run(real, input=text).returncode
    if told("die-before-echo"):
        die()
    sys.exit(status)

def stay():
    global transaction
    if told("silent"):
        sys.exit(run(real, input=sys.stdin.buffer.read(), stderr=DEVNULL).returncode)
    child = Popen(real, stdin=PIPE, stderr=PIPE)
    for line in sys.stdin.buffer:
        asked = line.startswith(b"envelope-done-")
        if not asked and line.strip():
            transaction = count()
            if told("die-when-asked"):
                child.kill()
                die()
            if told("hang"):
                hang()
            if told("die-midway") or told("die-before-commit"):
                child.stdin.write(line[:len(line) // 2])
                child.stdin.flush()
                child.kill()
                die()
            if refuses(line):
                say(b"Error: " + refuses(line).encode() + b"\n" + line)
                continue
            if told("truncate"):
                commands = line.strip().split(b"; ")
                line = b"; ".join(commands[:(len(commands) + 1) // 2]) + b"\n"
        try:
            child.stdin.write(line)
            child.stdin.flush()
        except BrokenPipeError:
            sys.exit(child.wait())
        if asked:
            said = b""
            for answer in child.stderr:
                said += answer
                if answer == line:
                    break
            if told("die-before-echo"):
                child.kill()
                die()
            say(b"\x00\xffnonsense\n" * 100 if told("garble") else said)
    child.stdin.close()
    sys.exit(child.wait())

if "list" in sys.argv:
    show()
elif "-f" in sys.argv:
    once()
else:
    stay()
"""


class FaultyNft(Orders):
    """Writes nft, with orders, into `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "nft"
        text = _NFT.format(python=sys.executable, real=NFT, poison4=POISON4, poison6=POISON6)
        self.path.write_text(text)
        self.path.chmod(0o755)

    def shown(self) -> int:
        """How often the rules were listed so far."""
        try:
            return (self.folder / "shown").stat().st_size
        except FileNotFoundError:
            return 0
