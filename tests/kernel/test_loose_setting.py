"""The rules remember that nf_conntrack_tcp_loose was 1 for as long as it is 0."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Callable
from inspect import iscoroutine
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from envelope.firewall import FirewallError
from envelope.firewall.flows.conntrack import Conntrack
from tests.kernel.faultyiptables import FaultyTools
from tests.kernel.firewallundertest import FAMILY_TOOLS, KINDS, SERVICE, Kernel, is_loose
from tests.kernel.leftovers import OPERATORS, World

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
# Options with which a service leaves the setting at 1.
OTHERS: list[dict[str, Any]] = [{"baseline": "operator"}, {"established": "keep"}]
# The backend of the first service, and of the next.
SUCCESSIONS = [("nft", "nft"), ("legacy", "legacy"), ("nftables", "nftables"),
               ("nftables", "legacy"), ("nft", "nftables")]


class _ReadOnly(Conntrack):
    """Connection tracking where /proc/sys is read-only."""

    def set_loose(self, loose: bool) -> None:
        raise OSError(errno.EROFS, "Read-only file system")


def _after(call: Callable[..., Any], look: Callable[[], object]) -> Callable[..., Any]:
    """A `call` that has `look` called after it is over, before anything else happens."""

    def looked(*args: Any) -> Any:
        answer = call(*args)
        if answer is None:
            look()
            return None
        waited = Deferred.fromCoroutine(answer) if iscoroutine(answer) else answer
        return waited.addBoth(lambda result: (look(), result)[1])

    return looked


def _watch(world: World, made: Any, forgotten: list[str]) -> None:
    """Collect each change in the kernel by `made` after which no rule tells of a setting at 0."""
    tables = [table for table, _ in made._tables]
    changes = [
        (made._flows._tracking, "set_loose"),
        *((table._writer, "apply") for table in tables),
        *((table, "_remove_whole") for table in tables),
        *((left, "clear") for left in made._leftovers._tables),
    ]
    for owner, name in changes:
        def look(what: str = f"{owner} {name}") -> None:
            if not is_loose() and not world.remembers_loose():
                forgotten.append(what)

        setattr(owner, name, _after(getattr(owner, name), look))


def _faulty(world: World, kind: str) -> tuple[FaultyTools, dict[str, Any]]:
    """Tools of a kind that fail when they are told to, and the options to use them."""
    return FaultyTools(world.folder, kind), {
        name: world.folder / name for name in FAMILY_TOOLS.values()}


@pytest.mark.parametrize("end", ["killed", "keep"])
@pytest.mark.parametrize(("first", "then"), SUCCESSIONS)
@ensureDeferred
async def test_no_change_of_a_start_or_stop_forgets_the_setting(world, first, then, end) -> None:
    """Whichever options the successor has."""
    before, forgotten = world.saved(), []
    for options in ({}, *OTHERS):
        if then == "nftables" and options in OTHERS[:1]:
            if first == "nftables":
                # The start is refused: the table is not the operator's.
                continue
            world.nft.run(*OPERATORS)
        left = world.make(first, on_stop="keep" if end == "keep" else "restore")
        _watch(world, left, forgotten)
        await left.open(SERVICE)
        await (left.close() if end == "keep" else world.kill())
        assert not is_loose()
        new = world.make(then, **options)
        _watch(world, new, forgotten)
        await new.open(SERVICE)
        assert is_loose() is bool(options)
        assert world.remembers_loose() is not bool(options)
        await new.close()
        assert is_loose()
        assert not forgotten
        if options in OTHERS[:1] and then == "nftables":
            world.nft.run("delete table inet envelope")
        assert world.saved() == before


@pytest.mark.parametrize("options", OTHERS)
@pytest.mark.parametrize("kind", KINDS)
@ensureDeferred
async def test_a_start_killed_before_it_restores_the_setting(world, kind, options) -> None:
    """Its rules are in force by then; the next start restores it."""
    before = world.saved()
    await world.make(kind).open(SERVICE)
    await world.kill()
    words = [f"{name}={value}" for name, value in options.items()]
    done = subprocess.run([sys.executable, "-m", "tests.kernel.killedstart", kind, *words],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not is_loose()
    last = world.make(kind, **options)
    await last.open(SERVICE)
    assert is_loose()
    await last.close()
    assert world.saved() == before


@pytest.mark.parametrize("kind", KINDS)
@ensureDeferred
async def test_a_start_that_fails_for_ipv6_leaves_what_ipv4_remembers(world, kind) -> None:
    """When it alone remembers, since others have removed IPv6's rules."""
    await world.make(kind).open(SERVICE)
    await world.kill()
    Kernel(kind, world.folder / "lock").change(6, "-P INPUT ACCEPT", "-F", "-X")
    tools, options = _faulty(world, kind)
    tools.order("fail:ip6tables")
    failing = world.make(kind, baseline="operator", **options)
    with pytest.raises(FirewallError, match="told to fail"):
        await failing.open(SERVICE)
    assert not is_loose()
    last = world.make(kind, baseline="operator")
    await last.open(SERVICE)
    assert is_loose()
    assert not world.remembers_loose()


@pytest.mark.parametrize("on_stop", ["restore", "keep"])
@pytest.mark.parametrize("kind", ["nft", "nftables"])
@ensureDeferred
async def test_a_start_that_breaks_restores_the_setting(world, kind, on_stop) -> None:
    """Even if it had to stay after a stop, as long as the rules."""
    before = world.saved()
    new = world.make(kind, on_stop=on_stop)

    def broken(*_: object) -> None:
        assert not is_loose()
        raise RuntimeError("unforeseen")

    new._flows._end = broken
    with pytest.raises(RuntimeError, match="unforeseen"):
        await new.open(SERVICE)
    assert is_loose()
    assert world.saved() == before


@pytest.mark.parametrize("options", OTHERS)
@pytest.mark.parametrize("kind", KINDS)
@ensureDeferred
async def test_a_setting_that_cannot_be_written_holds_nothing_up(world, kind, options) -> None:
    """The rules remember it until a start that may write it; a clean stop removes them."""
    before = world.saved()
    await world.make(kind).open(SERVICE)
    await world.kill()
    for end in ("killed", "stopped"):
        new = world.make(kind, **options)
        new._flows._tracking = _ReadOnly()
        await new.open(SERVICE)
        assert not new.problems()
        assert world.remembers_loose()
        if end == "killed":
            await world.kill()
        else:
            await new.close()
    assert world.saved() == before
    assert not is_loose()


@pytest.mark.parametrize(("one", "other"), [(4, 6), (6, 4)])
@pytest.mark.parametrize("kind", ["nft", "legacy"])
@ensureDeferred
async def test_what_one_family_remembers_of_the_kernels_setting_both_do(
    world, kind, one, other
) -> None:
    """Others may remove one family's rules, and the other family's after the next start."""
    for family in (one, other):
        await world.make(kind).open(SERVICE)
        await world.kill()
        kernel = Kernel(kind, world.folder / "lock")
        kernel.change(family, "-P INPUT ACCEPT", "-F", "-X")
    assert not is_loose()
    last = world.make(kind)
    await last.open(SERVICE)
    await last.close()
    assert is_loose()
