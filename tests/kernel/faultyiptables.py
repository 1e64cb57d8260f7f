"""Executables in place of iptables' tools, which fail, hang, garble or die on demand.

They read their orders from a file at every line of input, so a test can change the orders while
they run. An order may name a transaction: `fail@3` fails the third one after the order was given,
and no other. It may name one of iptables' tools: `fail:ip6tables`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# With the order `poison`, a transaction that contains one of these addresses fails.
POISON4, POISON6 = "203.0.113.66", "2001:db8::66"

# The lock file of iptables-legacy, in the tools' folder: the machine's own lock is shared, and
# other tests that run at the same time would have to wait for it.
LOCK = "xtables.lock"

# Every order, and what the tool does then.
ORDERS = {
    "fail": "refuses every transaction",
    "poison": "refuses transactions that hold the address POISON4 or POISON6",
    "hang": "takes a transaction and never answers",
    "garble": "applies and answers nonsense",
    "silent": "applies, and answers nothing before its input ends, as older tools do",
    "truncate": "drops the second half of a transaction, and reports success",
    "die-when-asked": "dies at a transaction's first byte",
    "die-midway": "dies after a transaction's first line",
    "die-before-commit": "dies when all but the end of a transaction is applied",
    "die-before-echo": "applies, and dies before it says so",
    "refuse-long": "nft alone: refuses long transactions, as the kernel does in user namespaces",
    "no-counters": "nft alone: knows no counters in sets, as versions before 0.9.5",
    "save-fails": "cannot show the rules",
    "save-garbles": "shows rules that cannot be parsed",
    "save-truncates": "shows the beginning of the rules",
    "save-hangs": "never shows the rules",
    "save-lists-no-tables": "shows only the table that it is asked for by name",
}

# How a tool in Python begins: who it is, and its orders.
BEGINNING = """#!{python} -IS
import os, sys, time
from subprocess import DEVNULL, PIPE, Popen, run
name = os.path.basename(sys.argv[0])
here = os.path.dirname(os.path.abspath(sys.argv[0]))
real = [{real!r}, *sys.argv[1:]]
transaction = 0

def count():
    # Counted in a file, since the next transaction may go to another process.
    with open(here + "/count-" + name, "a+") as file:
        file.write("x")
        file.flush()
        return os.fstat(file.fileno()).st_size

def hang():
    # Told to hang, it does, until it is killed; not for ever, in case nobody does.
    time.sleep(60)

def told(word):
    try:
        with open(here + "/orders") as file:
            orders = file.read().split()
    except FileNotFoundError:
        return False
    tool = name.partition("-")[0]
    return {{word, word + "@%d" % transaction, word + ":" + tool}}.intersection(orders)
"""

_RESTORE = BEGINNING + """
os.environ["XTABLES_LOCKFILE"] = here + "/{lock}"
lines = 0

def die():
    child.kill()
    child.wait()
    os.kill(os.getpid(), 9)

if told("silent"):
    sys.exit(run(real, input=sys.stdin.buffer.read(), stdout=DEVNULL).returncode)
child = Popen(real, stdin=PIPE, stdout=PIPE)
for line in sys.stdin.buffer:
    if line.startswith(b"*"):
        transaction, lines = count(), 0
        if told("die-when-asked"):
            die()
    lines += 1
    if told("hang"):
        hang()
    if told("fail") or (told("poison") and (b"{poison4}/" in line or b"{poison6}/" in line)):
        child.stdin.close()
        child.kill()
        child.wait()
        sys.exit("restore: told to fail")
    if told("truncate") and lines == 2:
        child.stdin.close()
        sys.exit(child.wait() and 0)
    if (told("die-midway") and lines == 2) or (told("die-before-commit") and line == b"COMMIT\\n"):
        die()
    try:
        child.stdin.write(line)
        child.stdin.flush()
    except BrokenPipeError:
        sys.exit(child.wait())
    if line.startswith(b"#"):
        # The echo confirms that everything before it is in force.
        for answer in child.stdout:
            if answer == line:
                break
        else:
            sys.exit(child.wait())
        if told("die-before-echo"):
            die()
        if told("garble"):
            line = b"\\x00\\xffnonsense\\n" * 100
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
child.stdin.close()
sys.exit(child.wait())
"""

_SAVE = """#!/bin/sh
orders=
[ -f "${{0%/*}}/orders" ] && read -r orders < "${{0%/*}}/orders"
case " $orders " in
*" save-fails "*) echo "save: told to fail" >&2; exit 1;;
*" save-garbles "*) printf '*filter\\n:INPUT DR\\n'; exit 0;;
*" save-truncates "*) {real} "$@" | head -n 3; exit 0;;
*" save-hangs "*) exec sleep 60;;
*" save-lists-no-tables "*) [ "$1" = -t ] || {{ echo "save: no list of tables" >&2; exit 1; }};;
esac
export XTABLES_LOCKFILE="${{0%/*}}/{lock}"
exec {real} "$@"
"""


class Orders:
    """The orders for the tools in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def order(self, *words: str) -> None:
        """Give these orders (words of `ORDERS`) instead of the last ones; none: work as usual."""
        unknown = {re.split("[@:]", word)[0] for word in words} - ORDERS.keys()
        assert not unknown, unknown
        for counted in self.folder.glob("count-*"):
            counted.unlink()
        # Replaced in one step, so that no tool reads half an order.
        fresh = self.folder / "orders.new"
        fresh.write_text(" ".join(words) + "\n")
        fresh.replace(self.folder / "orders")


class FaultyTools(Orders):
    """Writes iptables and ip6tables of one kind (`nft` or `legacy`), with orders, into `folder`."""

    def __init__(self, folder: Path, kind: str) -> None:
        super().__init__(folder)
        for name in ("iptables", "ip6tables"):
            restore = _RESTORE.format(
                python=sys.executable, real=f"/usr/sbin/{name}-{kind}-restore",
                poison4=POISON4, poison6=POISON6, lock=LOCK,
            )
            save = _SAVE.format(real=f"/usr/sbin/{name}-{kind}-save", lock=LOCK)
            one = _SAVE.format(real=f"/usr/sbin/{name}-{kind}", lock=LOCK)
            for part, text in (("", one), ("-save", save), ("-restore", restore)):
                path = folder / f"{name}{part}"
                path.write_text(text)
                path.chmod(0o755)
