"""Tools that are missing, fail or hang, as `envelope check` finds them."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from envelope.config import Config
from envelope.preflight.findings import Finding, Level
from envelope.preflight.tools import find_tools

pytestmark = pytest.mark.process


async def found(tmp_path: Path, script: str, patience: float = 5.0) -> Finding:
    """What is found of an nft that is this script."""
    nft = tmp_path / "nft"
    nft.write_text(f"#!/bin/sh\n{script}\n")
    nft.chmod(0o755)
    config = Config(device="lo", firewall="nftables", nft=nft)
    only, = await find_tools(reactor, config, {}, patience)
    return only


@pytest_twisted.ensureDeferred
async def test_a_tool_that_works(tmp_path: Path) -> None:
    only = await found(tmp_path, "echo nft v9")
    assert (only.level, "(nft v9)" in only.what) == (Level.OK, True)


@pytest_twisted.ensureDeferred
async def test_a_tool_that_fails(tmp_path: Path) -> None:
    only = await found(tmp_path, "[ $1 = --version ] || { echo Error: broken >&2; exit 1; }")
    assert (only.level, "broken" in only.what) == (Level.FAIL, True)
    assert "nft list tables" in only.do


@pytest_twisted.ensureDeferred
async def test_a_tool_that_hangs_is_ended(tmp_path: Path) -> None:
    only = await found(tmp_path, "exec sleep 1000", 0.2)
    assert (only.level, "nft did not answer within 0.2 s" in only.what) == (Level.FAIL, True)


@pytest_twisted.ensureDeferred
async def test_a_tool_that_says_nothing(tmp_path: Path) -> None:
    assert (await found(tmp_path, "")).level == Level.OK


@pytest.mark.parametrize(("version", "prints", "level"), [
    ("v9 (nf_tables)", "true", Level.WARN), ("v9 (nf_tables)", "false", Level.FAIL),
    # It would make the table.
    ("v9 (legacy)", "true", Level.FAIL),
])
@pytest_twisted.ensureDeferred
async def test_an_iptables_save_that_fails(
    tmp_path: Path, version: str, prints: str, level: Level
) -> None:
    """A start can do without it if the tool prints INPUT."""
    for part, script in (
        ("", f"case $1 in -S) {prints};; *) echo '{version}';; esac"),
        ("-save", "echo broken >&2; exit 1"), ("-restore", ""),
    ):
        tool = tmp_path / f"iptables{part}"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    config = Config(device="lo", iptables=tmp_path / "iptables", ip6tables=tmp_path / "iptables")
    for only in await find_tools(reactor, config, {}):
        assert (only.level, "iptables-save: broken" in only.what) == (level, True)


@pytest_twisted.ensureDeferred
async def test_tools_of_iptables_that_are_missing(tmp_path: Path) -> None:
    base = tmp_path / "iptables"
    base.write_text("#!/bin/sh\n")
    base.chmod(0o755)
    config = Config(device="lo", iptables=base, ip6tables=base)
    for only in await find_tools(reactor, config, {}):
        assert only.level == Level.FAIL
        assert "iptables-save is not installed" in only.what
