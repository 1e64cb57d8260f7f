"""Faults that a firewall could have, each as a change to the source of this one.

Every one breaks a promise of docs/rules.md or of `IFirewall`. `make mutants` plants them one by one
in a copy of the source and shows that a test fails; `docs/testing.md` has what it found. The text
that is replaced is looked for in the whole package, and has to be in it exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

IPTABLES: Final = ("nft", "legacy")
NFTABLES: Final = ("nftables",)
EVERY: Final = (*IPTABLES, *NFTABLES)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what is wrong with it in place, what becomes what, and `by` what it is noticed.

    That is a scenario of the model's, or else a file of tests or one test (`FILE::TEST`). `kinds`
    are those of the tools that the fault makes a difference for: a scenario is run with each, and
    so is a test with `{kind}` in its name.
    """

    name: str
    by: str
    old: str
    new: str
    kinds: tuple[str, ...] = EVERY

    def place(self, package: Path) -> Path:
        """The file under `package` that has the text, once; raise `LookupError` otherwise."""
        found = [path for path in sorted(package.rglob("*.py")) if self.old in path.read_text()]
        if len(found) != 1 or found[0].read_text().count(self.old) != 1:
            raise LookupError(f"{self.name}: not in exactly one place: {self.old!r}")
        return found[0]

    def plant(self, package: Path) -> None:
        """Change the source under `package`."""
        path = self.place(package)
        path.write_text(path.read_text().replace(self.old, self.new))


# Single tests of files whose other tests take a minute or more.
_DEVICE: Final = "tests/end_to_end/test_device.py::"
_RENAMED: Final = _DEVICE + "test_a_renamed_device_stays_guarded[{kind}]"
_BRIDGED: Final = _DEVICE + "test_a_device_that_becomes_part_of_a_bridge_stays_guarded[{kind}]"
_PORT: Final = _DEVICE + "test_a_port_of_a_bridge_is_refused_and_the_bridge_is_right[{kind}]"
_LINK: Final = "tests/end_to_end/test_link.py::"
_ADMIN: Final = _LINK + "test_a_grant_opens_no_admin_port[service-{kind}]"
_RESET: Final = _LINK + "test_sixty_connections_are_refused_at_once[{kind}]"
_BREAKS: Final = "tests/kernel/test_faults.py::test_a_start_that_breaks_changes_nothing"
_REPAIRED: Final = (
    "tests/kernel/test_nft_interference.py::test_interference_is_repaired_in_one_transaction"
)

FAULTS: Final = (
    # -- the guarded device
    Fault("a device is guarded under its first name alone", _RENAMED,
          "            names |= _names_of_packets(device, find)\n", ""),
    Fault("what a device becomes part of is not guarded", _BRIDGED,
          "        device = find(device.master) if device.master else None\n",
          "        device = None\n"),
    Fault("a device that was made anew is not followed", "tests/firewall/test_devices.py",
          "            self._followed.add(device.index)", "            pass"),
    Fault("what the kernel tells about devices is not read", _RENAMED,
          "            self._reactor.addReader(self)", "            pass"),
    Fault("the rule for one device stays beside those for several", _RENAMED,
          'lines += [f"-D {CHAIN} {rule}" for rule in former]', "lines += []", ("nft", "legacy")),
    Fault("the rule for one device stays beside those for several", _RENAMED,
          'lines += [f"delete rule {TABLE} {BASELINE} handle {rule.handle}" for rule in former]',
          "lines += []", NFTABLES),
    Fault("a part of a bridge may be guarded", _PORT,
          'if device.master and config.baseline == "service":', "if False:"),
    # -- promise 1: whole transactions, and answers that speak of the kernel
    Fault("chains that an unanswered transaction has made count as changes by others",
          "lost answers",
          "self._doubt.arranged(self._standing, text)", "self._standing", IPTABLES),
    Fault("what a failed transaction may have written counts as changed by others",
          "tests/firewall/reconcile/test_backlog.py",
          " - self._suspects - self._uncertain", " - self._suspects", ("nft",)),
    Fault("a change of grants is several transactions", "halves",
          "            await self._apply([*mending, *make_ends(making), *changes], patience)\n",
          "            lines = [*mending, *make_ends(making), *changes]\n"
          "            for line in sorted(lines, key=lambda line: line[:2] != '-D'):\n"
          "                await self._apply([line], patience)\n", IPTABLES),
    Fault("a change of grants is several transactions", "halves",
          "            await self._apply([*mending, *changes], patience)\n        exc",
          "            for line in [*mending, *changes]:\n"
          "                await self._apply([line], patience)\n        exc", NFTABLES),
    Fault("spreading grants over chains forgets those who are in",
          "tests/firewall/iptables/test_grants.py",
          "for key in (*moved, *wants):", "for key in wants:",
          IPTABLES),
    Fault("a grant is answered before it is in force", "sharing",
          "answer = self._waiters.await_allowed(key)",
          "answer = self._waiters.await_allowed(key)\n        self._waiters.allowed(key)"),
    Fault("a revocation is answered before it holds", "sharing",
          "answer = self._waiters.await_revoked(key)",
          "answer = self._waiters.await_revoked(key)\n        self._waiters.revoked(key)"),
    # -- promise 2: every grant's own end in the kernel
    Fault("a grant ends an hour late in the kernel", "sharing",
          "return min(_rounded_up(math.ceil(deadline) + MARGIN), LATEST_END)",
          "return min(_rounded_up(math.ceil(deadline) + MARGIN + 3600), LATEST_END)", IPTABLES),
    Fault("the chain that a grant ends by ends later than its name says", "sharing",
          'return f"-m time --datestop {datetime.fromtimestamp(end, UTC)',
          'return f"-m time --datestop {datetime.fromtimestamp(end + 3600, UTC)', IPTABLES),
    Fault("a grant jumps to a chain that ends earlier", "tests/firewall/iptables/test_rules.py",
          "return -(-second // GRANULE) * GRANULE", "return second // GRANULE * GRANULE", IPTABLES),
    Fault("a chain goes although grants end by it", "tests/firewall/iptables/test_ends.py",
          "dropping = idle - {*referred()}", "dropping = {*idle}", IPTABLES),
    Fault("chains that no grant needs stay for ever", "tests/firewall/iptables/test_ends.py",
          "idle = found.keys() - ahead", "idle = {*()}", IPTABLES),
    Fault("no chain is made ahead of time", "tests/firewall/iptables/test_ends.py",
          "making.update(range(end, end + AHEAD, GRANULE))", "pass", IPTABLES),
    Fault("a grant ends an hour late in the kernel", "sharing",
          "return float(math.ceil(end) + BACKSTOP)",
          "return float(math.ceil(end) + BACKSTOP + 3600)", NFTABLES),
    Fault("a grant has no end in the kernel", "sharing",
          'element if lasts is None else f"{element} timeout {duration(lasts)}"', "element",
          NFTABLES),
    Fault("a grant that is shared is not prolonged", "sharing",
          "return self._put(key, end)",
          "return self._put(key, self._ends.get(key, end))"),
    Fault("a grant that is shared ends with the shortest session", "sharing",
          "return max(self._deadlines.values(), default=None)",
          "return min(self._deadlines.values(), default=None)"),
    Fault("the clock is not watched", "clocks",
          "if steps := self._clock.steps():", "if steps := self._clock.steps()[:0]:", IPTABLES),
    Fault("ends follow the clock the wrong way", "clocks",
          "self._apart += round(moved)", "self._apart -= round(moved)", IPTABLES),
    Fault("grants are not written anew after a step of the clock", "clocks",
          "self._backlog.add(self._wanted.rewrite())", "pass", IPTABLES),
    Fault("no session ends by its deadline", "sharing",
          "data.deadline.start(data.remaining, machine.end, End.DEADLINE)", "pass"),
    # -- promise 3: leftovers, starts that fail, stops
    Fault("a start leaves the jump of a service that was killed", "deaths where all was open",
          'lines = [f"-D INPUT {rule}" for rule in entries if rule in _JUMPS]',
          "lines: list[str] = []", IPTABLES),
    Fault("a start leaves the chains of a service that was killed", "deaths where all was open",
          "stale = [chain for chain in snapshot.own_chains if chain not in chains]",
          "stale: list[str] = []", IPTABLES),
    Fault("a start leaves the grants of a service that was killed", "deaths where all was open",
          'lines += [f":{chain} - [0:0]" for chain in (*stale, *chains)]',
          'lines += [f":{chain} - [0:0]" for chain in (*stale, *chains)\n'
          "              if chain != GRANTS or chain not in snapshot.rules]", IPTABLES),
    Fault("a start leaves what a service that was killed had", "deaths where all was open",
          "return [*REMOVE_TABLE, ruleset(structure)]", "return [ruleset(structure)]", NFTABLES),
    Fault("the policy from before the first start is forgotten", "deaths where all was open",
          "if _MARKER + mark in snapshot.rules:", "if _MARKER in snapshot.rules:", IPTABLES),
    Fault("a stop leaves the default drop", "deaths where all was open",
          "lines.append(_policy_line(before(snapshot)))", "pass", IPTABLES),
    Fault("a stop lets everybody in", "deaths where all was shut",
          "lines.append(_policy_line(before(snapshot)))", "lines.append('-P INPUT ACCEPT')",
          IPTABLES),
    Fault("a stop leaves the table", "deaths where all was open",
          "return last_lines(now, *self._standing)", "return []", NFTABLES),
    Fault("a start leaves the rules of another backend", "tests/kernel/test_leftovers.py",
          "                await table.clear()\n", "                pass\n"),
    Fault("another backend's rules are cleared before ours are in force",
          "tests/kernel/test_leftovers.py",
          "            loose |= await self._flows.prepare(choices)\n",
          "            loose |= await self._flows.prepare(choices)\n"
          "            await self._leftovers.clear()\n"),
    Fault("what another backend's rules remember is forgotten", "tests/kernel/test_leftovers.py",
          "            loose |= await self._flows.prepare(choices)\n",
          "            loose = await self._flows.prepare(choices)\n"),
    Fault("an operator's rules replace what remembers the kernel's setting",
          "tests/kernel/test_loose_setting.py",
          "        if self.loose:\n            chains[_WAS",
          '        if self.loose and choices.baseline == "service":\n            chains[_WAS',
          IPTABLES),
    Fault("the kernel's setting is forgotten though it could not be restored",
          "tests/kernel/test_loose_setting.py",
          "for table in installed if restored else ():", "for table in installed:"),
    Fault("a start that breaks leaves the kernel's setting", "tests/kernel/test_loose_setting.py",
          "self._flows.stop(failed=True)", "self._flows.stop()"),
    Fault("iptables-legacy makes a table to look for leftovers",
          "tests/kernel/test_leftovers_found.py",
          'if self._kind == "legacy" and not self._legacy_exists():', "if False:"),
    Fault("a start that breaks by an unforeseen error leaves rules", _BREAKS,
          "            except BaseException:\n                await self._take_back()",
          "            except ToolFailed:\n                await self._take_back()"),
    Fault("a start that fails for IPv6 leaves IPv4's rules", "failing starts",
          "await table.abandon()", "pass", IPTABLES),
    # -- promise 4: what fails
    Fault("no look at the kernel after a transaction that failed", "lost answers",
          "            self._must_look = not self._blind\n", ""),
    Fault("a rule of others that cannot be printed stops the service",
          "tests/kernel/test_unprintable.py",
          "text = await chain_by_chain(self._tools.list_chain, unused)", "raise", ("nft",)),
    Fault("a stop leaves the rules when they cannot be read", "tests/kernel/test_unprintable.py",
          "now = self._as_written()", "raise"),
    Fault("nothing is written while the kernel cannot be read",
          "tests/firewall/reconcile/test_reconciler.py",
          "                await (self._look() if self._must_look else self._apply_next())\n",
          "                if self._blind and not self._must_look:\n                    break\n"
          "                await (self._look() if self._must_look else self._apply_next())\n"),
    Fault("a change that failed waits as long as there are others",
          "tests/firewall/reconcile/test_backlog.py",
          "if self._suspects and self._suspects_overtaken >= MOST_OVERTAKEN:", "if False:"),
    Fault("a grant that was refused is still wanted",
          # Sessions ask for what is left as well, so that the model sees no difference.
          "tests/firewall/reconcile/test_wanted.py",
          "return self._put(key, older)", "return []"),
    Fault("a grant that cannot be made to end earlier yet keeps its end",
          "tests/firewall/reconcile/test_wanted.py",
          "if older is not None and asked is not None and asked < older:", "if False:"),
    Fault("a revocation that failed is not tried again",
          "tests/firewall/reconcile/test_reconciler.py",
          "self._backlog.retry()", "pass"),
    Fault("one poisonous change fails its neighbours",
          "tests/firewall/reconcile/test_backlog.py",
          "alone = len(keys) == 1 and (", "alone = not not keys or ("),
    Fault("nobody is told that the tool refuses", "poison",
          "return self._reports.problem(len(self._waiters.revoking))", "return None"),
    Fault("a grant that fails costs a place", "troubles",
          "        self._free_slot(data)\n        self._metrics.request(",
          "        self._metrics.request("),
    Fault("a client that leaves before its answer leaves its grant", "leaving early",
          "    data.owner.given_up(data)\n"
          "    data.owner.revoke(data).addCallback(lambda _: machine.revoked())",
          "    data.owner.given_up(data)\n    machine.revoked()"),
    # -- promise 5: what others do
    Fault("the rules are not compared", "interference",
          "self._checks.start(self._check_every, now=False)", "pass"),
    Fault("the rules of IPv6 are not compared", "interference",
          "for _, reconciler in self._tables:\n            reconciler.check()",
          "for _, reconciler in self._tables[:1]:\n            reconciler.check()", IPTABLES),
    Fault("what others do to the chain that a grant ends by stays", "interference",
          "making = making | (spoiled - dropping)", "pass", IPTABLES),
    Fault("a grant with an end of its own is taken for a rule of others", "interference",
          'else read_datestop(match["time"])', "else None", IPTABLES),
    Fault("grants in the chains of another arrangement count",
          "tests/firewall/iptables/test_incremental.py",
          "if chain != structure.leaf(key):\n                    _leave_out",
          "if False:\n                    _leave_out", IPTABLES),
    Fault("a grant that others move behind the newest counts where it was",
          "tests/firewall/iptables/test_incremental.py",
          "moved = former.newest ^ structure.newest", "moved = frozenset[Key]()", IPTABLES),
    Fault("the newest grants are compared last", "tests/firewall/iptables/test_grants.py",
          'return f"-I {chain} 1"', 'return f"-A {chain}"', IPTABLES),
    Fault("the newest grants all stay in the first chain",
          "tests/firewall/iptables/test_tree.py",
          "room = self.newest if spread else self.most", "room = 1 << 30", IPTABLES),
    Fault("where networks are after an unanswered transaction is not found out",
          "tests/firewall/iptables/test_unanswered.py",
          "return shown.placed(self._keys, newest_in(there, shown))", "return shown", IPTABLES),
    Fault("a grant of others' is sought where a new one would be",
          "tests/firewall/iptables/test_incremental.py",
          "standing = standing.placed(strange, standing.newest)", "pass", IPTABLES),
    Fault("a chain is never split", "tests/firewall/iptables/test_tree.py",
          "if len(keys) > self._most:", "if False:", IPTABLES),
    Fault("chains are never merged again", "tests/firewall/iptables/test_tree.py",
          "for name in sorted({*shrunk.values()}):", "for name in ():", IPTABLES),
    Fault("a grant for one service is one for another", "tests/firewall/iptables/test_grants.py",
          "return int(match[1]) if match else 0", "return 0", IPTABLES),
    Fault("a chain's order is never repaired", "interference",
          "rest = iter(there)", "rest = there"),
    Fault("stray grants stay", "interference",
          "self._grants.items() ^ in_force.items()", "self._grants.items() - in_force.items()"),
    Fault("mending drops others' rules from our chains", "interference",
          "astray = {rule for rule in ours if Counter(there)[rule] > kept[rule]}",
          "astray = {rule for rule in ours if Counter(there)[rule] > kept[rule]}"
          " | ({*there} - {*ours})", IPTABLES),
    Fault("mending drops others' rules from our chains", "interference",
          "place for place, text in enumerate(texts) if text in ours and place not in staying",
          "place for place, _ in enumerate(texts) if place not in staying", NFTABLES),
    Fault("mending the jump drops others' rules", "interference",
          '*[f"-D INPUT {structure.jump}"] * (len(entries) - len(others)),',
          '*[f"-D INPUT {rule}" for rule in entries],', IPTABLES),
    Fault("mending the jump drops others' rules", "interference",
          "for rule in there.rules if rule.text == printed.jump),", "for rule in there.rules),",
          NFTABLES),
    Fault("the jump comes back behind others' rules", "interference",
          'return f"-I INPUT {behind + 1} {structure.jump}"',
          'return f"-A INPUT {structure.jump}"', IPTABLES),
    Fault("the jump comes back behind others' rules", "interference",
          'return f"insert rule {TABLE} {INPUT} {jump}"',
          'return f"add rule {TABLE} {INPUT} {jump}"', NFTABLES),
    Fault("a start and a repair overtake bans", "tests/kernel/test_bans.py",
          "behind = place(snapshot, others, structure.before)", "behind = 0", IPTABLES),
    Fault("a start and a repair overtake bans", "tests/kernel/test_bans.py",
          "behind = _judge(snapshot).harmless([rule.text for rule in others], most)", "behind = 0",
          NFTABLES),
    Fault("a chain that accepts may stand before us", "tests/firewall/test_foreign.py",
          "(self._of(rule, depth + 1) for rule in rules), default=Verdict.SHUTS",
          "(self._of(rule, depth + 1) for rule in rules[:1]), default=Verdict.SHUTS"),
    Fault("the policy is not set again", "interference",
          'if structure.choices.baseline == "service" and snapshot.policy != "DROP":',
          'if structure.choices.baseline == "service" and not snapshot.policy:', IPTABLES),
    Fault("the policy is not set again", "interference",
          'if structure.choices.baseline == "service" and hook != printed.hook:',
          'if structure.choices.baseline == "service" and not hook:', NFTABLES),
    Fault("a table that was put to sleep sleeps on", "interference",
          '"flags dormant" in snapshot.flags and', '"flags" in snapshot.flags and', NFTABLES),
    Fault("the kernel's count of changes is believed whatever it is", _REPAIRED,
          "return self._known is not None and self._known == self._generation()",
          "return self._known is not None", NFTABLES),
    Fault("an address that the tool spells in another way is a difference",
          "tests/kernel/test_spelling.py", 'if "." in source:', "if not source:", IPTABLES),
    Fault("a protocol that the tool prints by its name is a difference",
          "tests/kernel/test_spelling.py",
          'return rule if number is None else f"-p {number} -j ACCEPT"', "return rule", IPTABLES),
    Fault("a grant opens the admin port", _ADMIN,
          "self._ports.open_ports(), self._ports.shut_ports()", "self._ports.open_ports(), ()"),
    Fault("chains of others that begin like ours are cleared",
          "tests/firewall/iptables/test_plan.py",
          'OWN_CHAINS: Final = re.compile(f"{_OWN_NAME}$")',
          'OWN_CHAINS: Final = re.compile("ENVELOPE")', IPTABLES),
    Fault("two that insist on the first place move for ever",
          "tests/firewall/reconcile/test_contest.py", "self._moves += 1", "self._moves = 1"),
    # -- promise 6, and who shares a network
    Fault("flows live on after their grant's end", "sharing",
          'direction = " --ctdir REPLY" if choices.established == "cut" else ""', 'direction = ""',
          IPTABLES),
    Fault("flows live on after their grant's end", "sharing",
          'direction = " ct direction reply" if choices.established == "cut" else ""',
          'direction = ""', NFTABLES),
    Fault("everybody is let in", "sharing",
          '"reject with icmpx type port-unreachable"', '"accept"', NFTABLES),
    Fault("TCP waits for an error that the kernel limits", _RESET,
          '        "-p tcp -j REJECT --reject-with tcp-reset",\n', "", IPTABLES),
    Fault("TCP waits for an error that the kernel limits", _RESET,
          '        "meta l4proto tcp reject with tcp reset",\n', "", NFTABLES),
    Fault("the last but one session of a network takes the grant along", "sharing",
          "if not deadlines:", "if len(deadlines) < 2:"),
    Fault("IPv6 clients are not shut out", "sharing",
          "if reconciler is None:\n            return succeed(None)\n        self._granted.remove",
          "if reconciler is None or grant.network.version == 6:\n"
          "            return succeed(None)\n        self._granted.remove"),
    Fault("iptables-legacy's rules are not read though others may have changed them",
          "tests/firewall/test_contract.py",
          "None if changed or not written_by_nft(text) else known", "None if changed else known"),
    Fault("a grant that let something in counts as unused",
          "tests/firewall/reconcile/test_ledger.py",
          "self.gone and self.exact and not self.packets,", "self.gone,"),
    Fault("clients' sockets are left alone", "tests/firewall/flows/test_flows.py",
          "strangers = [each for each in connections if judge.is_own(each) is False]",
          "strangers = [each for each in connections if judge.is_own(each) is None]"),
    Fault("who opened a connection is taken for the opposite",
          "tests/firewall/flows/test_kernel.py",
          "return {0: False, 1: True}.get(more)", "return {0: True, 1: False}.get(more)"),
    Fault("a network that is let in again loses what it opens",
          "tests/firewall/flows/test_flows.py",
          "self._cutter.spare(network, ports)", "pass"),
    Fault("a grant's end cuts flows that another one allows", "tests/firewall/flows/test_flows.py",
          "(*self._open, *proxies, *cut.still_open)", "(*self._open, *proxies)"),
    # -- several services, counting, and idle sessions
    Fault("a grant opens more than its subject's ports", "tests/kernel/test_services.py",
          "for port in _matches(service)", 'for port in ("",)', NFTABLES),
    Fault("sessions of one network share a grant though their services differ", "services",
          "GrantId(self.network, self.admission.service)", "GrantId(self.network, 0)"),
    Fault("a revocation ends the network's first grant", "services",
          "return reconciler.revoke(grant.key)",
          "return reconciler.revoke(GrantId(grant.network).key)"),
    Fault("of a range of ports the first is opened alone", "services",
          'else f":{ports.last}"', 'else ""', IPTABLES),
    Fault("of a range of ports the first is opened alone", "services",
          'else f"-{ports.last}"', 'else ""', NFTABLES),
    Fault("a start leaves the chains of a killed one's services", "deaths among services",
          r'B\d{1,6}|S\d{1,4}|[0-3]{1,4})"', r'B\d{1,6}|[0-3]{1,4})"', IPTABLES),
    Fault("a grant in the set of one service counts for another", "interference among services",
          'int(match["service"] or 0)', "0", NFTABLES),
    Fault("what a replaced rule has counted is lost",
          "tests/firewall/reconcile/test_ledger.py",
          "                entry.add()\n", "                entry.rule_packets = 0\n"),
    Fault("what the kernel tells of deletions is not heard", "tests/kernel/test_counting.py",
          "self._events = Events(NETLINK_NETFILTER, _GROUP, _BUFFER)", "pass",
          ("nft", "nftables")),
    Fault("a session with traffic ends as idle", "tests/sessions/test_idle.py",
          "if packets != last.packets:", "if False:"),
    Fault("who cannot be counted is idle", "tests/sessions/test_idle.py",
          "        return last, False\n", "        return last, now - last.since >= idle\n"),
    Fault("the kernel's setting is not given back", "tests/firewall/flows/test_flows.py",
          "self._set_loose(True)", "self._set_loose(False)"),
    Fault("a UDP server's packet turns a client's flow round",
          "tests/firewall/flows/test_flows.py",
          "for each, turned in ((flow, False), (flow.turned, True)):",
          "for each, turned in ((flow, False),):"),
)
