"""The tool fails: a real executable in its place fails, hangs, garbles or vanishes on demand."""

from __future__ import annotations

import subprocess
import sys
import time
from ipaddress import ip_network
from pathlib import Path

import pytest
from pytest_twisted import blockon, ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater

from envelope.config import Config, PortRange
from envelope.firewall import FirewallError
from envelope.firewall.iptables import IptablesFirewall
from envelope.firewall.ruleset import read_grant
from envelope.firewall.snapshot import Snapshot
from envelope.metrics import Metrics
from tests.environment import need_own_network

pytestmark = pytest.mark.kernel

SERVICE = (PortRange("tcp", 8880, 8880),)
NETWORKS = [ip_network(f"203.0.113.{n}/32") for n in range(1, 9)]
POISON = ip_network("203.0.113.66/32")

# Stands between the service and the real tool, line by line; does what the file `orders` says.
WRAPPER = """#!{python}
import os, subprocess, sys, time
name = os.path.basename(sys.argv[0])
here = os.path.dirname(os.path.abspath(sys.argv[0]))
real = "/usr/sbin/" + name.replace("iptables-", "iptables-{kind}-")

def orders():
    try:
        return open(here + "/orders").read().split()
    except FileNotFoundError:
        return []

if name.endswith("-save"):
    if "save-fails" in orders():
        sys.exit("save: told to fail")
    if "save-garbles" in orders():
        print("*filter")
        print(":INPUT DR")
        sys.exit(0)
    os.execv(real, sys.argv)
if "silent" in orders():
    # An old tool: says nothing before its input ends.
    text = sys.stdin.read()
    sys.exit(subprocess.run([real, *sys.argv[1:]], input=text, text=True,
                            stdout=subprocess.DEVNULL).returncode)
child = subprocess.Popen([real, *sys.argv[1:]], stdin=subprocess.PIPE)
for line in sys.stdin.buffer:
    told = orders()
    if "hang" in told:
        time.sleep(60)
    if "fail" in told or ("poison" in told and b"203.0.113.66" in line):
        child.stdin.close()
        child.kill()
        sys.exit("restore: told to fail")
    if "die-before-commit" in told and line == b"COMMIT\\n":
        child.kill()
        os.kill(os.getpid(), 9)
    if "garble" in told and line.startswith(b"#"):
        sys.stdout.write("\\x00\\xffnonsense\\n" * 100)
        sys.stdout.flush()
        continue
    child.stdin.write(line)
    child.stdin.flush()
child.stdin.close()
sys.exit(child.wait())
"""


class Subject:
    """A real firewall over a tool that does as it is told."""

    def __init__(self, folder: Path, kind: str) -> None:
        need_own_network()
        self.folder, self.kind = folder, kind
        text = WRAPPER.format(python=sys.executable, kind=kind)
        for name in ("iptables", "ip6tables"):
            for part in ("", "-save", "-restore"):
                path = folder / f"{name}{part}"
                path.write_text(text)
                path.chmod(0o755)
        config = Config(device="lo", iptables=folder / "iptables", ip6tables=folder / "ip6tables")
        self.metrics = Metrics()
        self.before = self.saved()
        self.firewall = IptablesFirewall(reactor, config, self.metrics, check_every=0.2)

    def order(self, *words: str) -> None:
        (self.folder / "orders").write_text(" ".join(words))

    def saved(self) -> str:
        text = "".join(
            subprocess.run([f"/usr/sbin/{name}-{self.kind}-save", "-t", "filter"], check=True,
                           capture_output=True, text=True).stdout
            for name in ("iptables", "ip6tables")
        )
        return "\n".join(x.split(" [")[0] for x in text.splitlines() if not x.startswith("#"))

    def iptables(self, *words: str) -> None:
        subprocess.run([f"/usr/sbin/iptables-{self.kind}", *words], check=True)

    def open_networks(self) -> set[object]:
        snapshot = Snapshot.parse(subprocess.run(
            [f"/usr/sbin/iptables-{self.kind}-save"], check=True, capture_output=True, text=True
        ).stdout)
        grants = map(read_grant, snapshot.rules.get("ENVELOPE-GRANTS", ()))
        return {ip_network(grant[0]) for grant in grants if grant}

    def drift(self, kind: str) -> float:
        return self.metrics.registry.get_sample_value(
            "envelope_firewall_drift_total", {"kind": kind}) or 0.0

    async def settled(self, condition, patience: float = 60.0) -> None:
        limit = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < limit, "it never came true"
            await deferLater(reactor, 0.02)

    def close(self) -> None:
        self.order()
        blockon(self.firewall.close())
        assert self.saved() == self.before


@pytest.fixture(params=["nft", "legacy"])
def subject(request, tmp_path):
    made = Subject(tmp_path, request.param)
    yield made
    made.close()


def later(seconds: float) -> float:
    return time.time() + seconds


async def refused(answer: Deferred) -> str:
    try:
        await answer
    except FirewallError as error:
        return str(error)
    raise AssertionError("it was granted")


@ensureDeferred
async def test_one_poisonous_change_fails_alone(subject) -> None:
    """Its neighbours in the same batch are let in."""
    await subject.firewall.open(SERVICE)
    subject.order("poison")
    neighbours = [subject.firewall.allow(n, later(60)) for n in NETWORKS]
    assert "told to fail" in await refused(subject.firewall.allow(POISON, later(60)))
    await gatherResults(neighbours)
    assert subject.open_networks() == set(NETWORKS)
    subject.order()
    await subject.settled(lambda: not subject.firewall.problems())


@ensureDeferred
async def test_a_revocation_is_tried_again_until_it_holds(subject) -> None:
    """It is a problem for as long as it does not, and others come and go meanwhile."""
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(POISON, later(600))
    subject.order("poison")
    gone = subject.firewall.revoke(POISON)
    await subject.settled(lambda: subject.firewall.problems() != [])
    assert "1 revocations outstanding" in subject.firewall.problems()[0]
    await subject.firewall.allow(NETWORKS[0], later(60))
    await subject.firewall.revoke(NETWORKS[0])
    assert not gone.called
    assert subject.open_networks() == {POISON}
    subject.order()
    await gone
    assert subject.open_networks() == set()
    await subject.settled(lambda: not subject.firewall.problems())


@ensureDeferred
async def test_a_revocation_also_holds_once_the_kernel_has_ended_the_grant(subject) -> None:
    """So that a broken tool cannot keep a slot for ever."""
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(POISON, later(-3))
    subject.order("poison")
    await subject.firewall.revoke(POISON).addTimeout(15, reactor)
    assert subject.open_networks() == {POISON}


@pytest.mark.parametrize("order", ["fail", "die-before-commit", "save-fails fail"])
@ensureDeferred
async def test_a_tool_that_fails_refuses_and_leaves_nothing(subject, order) -> None:
    """And serves again once it works."""
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(NETWORKS[0], later(60))
    subject.order(*order.split())
    asked = time.monotonic()
    answers = [subject.firewall.allow(n, later(60)) for n in NETWORKS[1:4]]
    await DeferredList(answers, consumeErrors=True)
    assert time.monotonic() - asked < 10
    assert subject.open_networks() == {NETWORKS[0]}
    subject.order()
    await subject.firewall.allow(NETWORKS[5], later(60)).addTimeout(20, reactor)
    await subject.firewall.revoke(NETWORKS[0])
    assert subject.open_networks() == {NETWORKS[5]}


@pytest.mark.parametrize("order", ["hang", "garble"])
@ensureDeferred
async def test_a_tool_that_does_not_answer_is_given_up(subject, order) -> None:
    """Within the 10 s that a client may wait for its 500."""
    await subject.firewall.open(SERVICE)
    subject.order(order)
    asked = time.monotonic()
    await refused(subject.firewall.allow(NETWORKS[0], later(60)))
    assert time.monotonic() - asked < 10
    subject.order()
    await subject.firewall.allow(NETWORKS[1], later(60)).addTimeout(20, reactor)
    # A tool that applied and did not say so has let the refused one in: it goes at the next look.
    await subject.settled(lambda: subject.open_networks() == {NETWORKS[1]})


@ensureDeferred
async def test_a_tool_that_vanishes_and_comes_back(subject) -> None:
    """A grant is refused meanwhile; a revocation waits for it."""
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(NETWORKS[0], later(60))
    tool = subject.folder / "iptables-restore"
    tool.rename(subject.folder / "away")
    subject.iptables("-F", "ENVELOPE-GRANTS")
    gone = subject.firewall.revoke(NETWORKS[0])
    (subject.folder / "away").rename(tool)
    await gone
    assert subject.open_networks() == set()


@ensureDeferred
async def test_a_tool_that_does_not_echo_is_run_once_per_transaction(subject) -> None:
    """As older ones need."""
    subject.order("silent")
    await subject.firewall.open(SERVICE)
    await gatherResults([subject.firewall.allow(n, later(60)) for n in NETWORKS])
    assert subject.open_networks() == set(NETWORKS)
    await gatherResults([subject.firewall.revoke(n) for n in NETWORKS])
    assert subject.open_networks() == set()


@pytest.mark.parametrize("order", ["fail", "save-fails", "save-garbles"])
@ensureDeferred
async def test_a_start_that_fails_changes_nothing(subject, order) -> None:
    """And says why."""
    subject.order(order)
    assert await refused(subject.firewall.open(SERVICE))
    assert subject.saved() == subject.before


@ensureDeferred
async def test_a_second_instance_is_refused_before_it_touches_anything(subject, tmp_path) -> None:
    """The first goes on undisturbed."""
    await subject.firewall.open(SERVICE)
    rules = subject.saved()
    second = IptablesFirewall(reactor, Config(device="lo"), Metrics())
    assert "another envelope" in await refused(second.open(SERVICE))
    assert subject.saved() == rules


INTERFERENCE = {
    "our chain flushed": ("baseline", [["-F", "ENVELOPE"]]),
    "grants flushed": ("grant", [["-F", "ENVELOPE-GRANTS"]]),
    "the jump deleted": ("jump", [["-D", "INPUT", "-j", "ENVELOPE"]]),
    "the policy reset": ("policy", [["-P", "INPUT", "ACCEPT"]]),
    "a rule above us": ("jump", [["-I", "INPUT", "1", "-s", "9.9.9.9", "-j", "DROP"]]),
    "everything flushed": ("baseline", [["-F"], ["-X"], ["-P", "INPUT", "ACCEPT"]]),
}


@pytest.mark.parametrize("what", INTERFERENCE)
@ensureDeferred
async def test_interference_is_noticed_mended_and_counted(subject, what) -> None:
    """Foreign rules stay; live grants come back."""
    kind, commands = INTERFERENCE[what]
    if what == "everything flushed":
        kind = "chain"
    await subject.firewall.open(SERVICE)
    await subject.firewall.allow(NETWORKS[0], later(60))
    good = subject.saved()
    for words in commands:
        subject.iptables(*words)
    subject.iptables("-A", "INPUT", "-s", "9.9.9.8/32", "-j", "DROP")
    await subject.settled(lambda: subject.drift(kind) > 0)

    def mended() -> bool:
        ours = [x for x in subject.saved().splitlines() if "9.9.9." not in x]
        return sorted(ours) == sorted(good.splitlines())

    await subject.settled(mended)
    snapshot = subject.saved()
    assert "-A INPUT -s 9.9.9.8/32 -j DROP" in snapshot
    subject.iptables("-D", "INPUT", "-s", "9.9.9.8/32", "-j", "DROP")
    if what == "a rule above us":
        assert "-A INPUT -s 9.9.9.9/32 -j DROP" in snapshot
        subject.iptables("-D", "INPUT", "-s", "9.9.9.9", "-j", "DROP")
