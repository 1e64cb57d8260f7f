"""The rules of a network, read with tools of every kind, some of them missing or failing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from envelope.config import Config
from envelope.netlink import attribute
from envelope.preflight.hostrules import HostRules, read_rules, read_table

pytestmark = pytest.mark.process

CONFIG = Config(device="lo")
FILTER = "*filter\n-A INPUT -m set --match-set bad src -j DROP\nCOMMIT"


class Tools:
    """A folder of tools that print what they are told; all others fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proc = folder / "proc"
        self.proc.mkdir()
        for name in ("nft", "ipset", *(
            f"ip{six}tables{kind}{part}" for six in ("", "6") for kind in ("", "-nft", "-legacy")
            for part in ("-save", "-restore")
        )):
            self.say(name, "echo broken >&2; exit 1")

    def say(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def print(self, name: str, text: str) -> None:
        self.say(name, f"cat <<'END'\n{text}\nEND")

    def read(self) -> HostRules:
        return read_rules(CONFIG, str(self.folder), self.proc)


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path)


def test_everything_is_read_once(tools: Tools) -> None:
    """What iptables-nft shows is not read with nft again; a table of its name in inet is."""
    tools.print("iptables-nft-save", FILTER)
    tools.print("ip6tables-nft-save", "# nothing")
    (tools.proc / "ip_tables_names").write_text("nat\n")
    tools.print("iptables-legacy-save", "*nat\nCOMMIT")
    tools.print("ipset", "create bad hash:ip")
    tools.say("nft", 'case "$*" in "list tables") printf "table %s\\n" "ip filter" "inet filter" '
                     '"ip nat" ;; *) echo "shown: $*" ;; esac')
    found = tools.read()
    assert found.unread == []
    assert list(found.saved) == [("iptables", "legacy"), ("iptables", "nft")]
    assert list(found.tables) == ["inet filter", "ip nat"]
    assert found.tables["ip nat"].text == "shown: list table ip nat\n"
    assert found.sets is not None
    assert found.sets.text == "create bad hash:ip\n"
    assert [part.name for part in found.parts()] == [
        "sets of ipset", "iptables-legacy", "iptables-nft", "table inet filter", "table ip nat"]


SHOWN = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j DROP\nCOMMIT\n*nat\nCOMMIT"
RULE = 'tcp dport 22 counter packets 1 bytes 2 drop comment "xt match #"'
OTHER_BASE = "# Table `filter' contains incompatible base-chains, use 'nft' tool to list them.\n"


@pytest.mark.parametrize(("note", "rules", "by_nft", "told"), [
    ("", [RULE], False, False),
    ("", [RULE, "tcp dport { 22, 23 } drop"], True, False),
    (OTHER_BASE, [RULE], True, False),
    ("", ["xt match recent counter packets 1 bytes 2 drop"], False, False),
    ("", ["xt match recent counter packets 1 bytes 2 drop", "tcp dport 22 drop"], False, True),
    ("", ["# recent: CHECK counter packets 1 bytes 2 drop", "tcp dport 22 drop"], False, True),
])
def test_what_nft_put_into_a_table_of_iptables_is_read_with_nft(
    tools: Tools, note: str, rules: list[str], by_nft: bool, told: bool
) -> None:
    """By iptables it is shown as other rules, or not at all."""
    tools.print("iptables-nft-save", note + SHOWN)
    tools.print("ip6tables-nft-save", "# nothing")
    table = "".join((
        "table ip filter {\n\tchain INPUT {\n",
        "\t\ttype filter hook input priority filter; policy accept;\n",
        *(f"\t\t{rule}\n" for rule in rules), "\t}\n}"))
    (tools.folder / "table").write_text(table)
    tools.say("nft", f"case \"$*\" in *tables) echo 'table ip filter'; echo 'table ip nat';; "
                     f"*filter) cat {tools.folder / 'table'};; *) echo 'table ip nat {{';; esac")
    found = tools.read()
    assert bool(found.unread) is told
    saved = found.saved["iptables", "nft"].text
    assert ("*filter" in saved, "*nat" in saved) == (not by_nft, True)
    assert {name: part.text for name, part in found.tables.items()} == (
        {"ip filter": table} if by_nft else {})


@pytest.mark.parametrize(("flags", "left"), [
    ("owner", ""), ("owner,persist", ""), ("dormant,owner", "\tflags dormant\n"),
    ("dormant", "\tflags dormant\n"),
])
def test_a_table_of_a_running_process_is_loaded_as_any_other(
    tools: Tools, flags: str, left: str
) -> None:
    """With the flag `owner` it would end with the nft that loads it."""
    others = "\tset s {\n\t\ttype ipv4_addr\n\t\tflags timeout\n\t}\n}\n"
    table = f"table inet fw {{ # progname firewalld\n\tflags {flags}\n{others}"
    tools.say("nft", f"case \"$*\" in *tables) echo 'table inet fw';; *) printf '{table}';; esac")
    found = tools.read().tables["inet fw"]
    assert found.text == f"table inet fw {{ # progname firewalld\n{left}{others}"


def test_what_cannot_be_read_is_named(tools: Tools) -> None:
    (tools.proc / "ip_tables_names").write_text("filter\n")
    (tools.proc / "ip6_tables_names").mkdir()
    tools.print("ip6tables-nft-save", FILTER)
    unread = tools.read().unread
    for said in ("iptables-legacy: iptables-legacy-save: broken", "Is a directory",
                 "iptables-nft: iptables-nft-save: broken", "tables of nftables: nft: broken",
                 "sets that rules name: ipset: broken"):
        assert any(said in line for line in unread), said


@pytest.mark.parametrize(("tables", "said"), [
    ([], None), (["ip filter"], None),
    (["ip filter", "inet fw"], "tables of nftables (inet fw): nft is not installed"),
    (OSError(1, "Operation not permitted"), "the kernel says Operation not permitted"),
])
def test_without_nft_the_kernel_names_its_tables(
    tools: Tools, tables: list[str] | OSError, said: str | None
) -> None:
    """A host without nft, and without tables of nft's own, is in order."""

    def listed() -> list[str]:
        if isinstance(tables, OSError):
            raise tables
        return tables

    tools.print("iptables-nft-save", "*filter\nCOMMIT")
    tools.print("ip6tables-nft-save", "# nothing")
    (tools.folder / "nft").unlink()
    config = replace(CONFIG, nft=Path("/nonexistent"))
    found = read_rules(config, str(tools.folder), tools.proc, listed)
    assert [said in line for line in found.unread] == ([True] if said else [])


def test_the_kernels_tables() -> None:
    body = bytes((1, 0, 0, 0)) + attribute(1, b"fw\0") + attribute(2, bytes(4))
    assert read_table(body) == "inet fw"
    assert read_table(bytes(4)) == "0 "


def test_a_table_that_nft_cannot_print_is_named(tools: Tools) -> None:
    tools.say("nft", 'case "$*" in "list tables") echo "table inet odd" ;; *) exit 1 ;; esac')
    assert any("table inet odd: nft: exit 1" in line for line in tools.read().unread)

