"""Tries the firewall in networks of this process's own.

Run as `python -m envelope.preflight.trial PARENT [options]`, PARENT being a process's id.
`envelope check` runs it as a child with the service's options, because a process cannot come back
from another network, and reads what it found from its output: a JSON list of [level, what, do].

It reads this network's rules, makes an empty network and tries the kernel's features there; makes
another one with the rules in it, starts the service's own firewall there, lets clients in, and
sends their packets. What it made ends with the process, also by `kill -9`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from envelope.addresses import Address, PortRange
from envelope.config import Config
from envelope.config.options import parse
from envelope.firewall import FirewallError, GrantId, IFirewall
from envelope.firewall.backends import make_firewall
from envelope.firewall.iptables import families_of_this_kernel
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.process import CLEAN_ENVIRONMENT
from envelope.preflight.blame import blame, chains
from envelope.preflight.commands import NO_LOCK, find
from envelope.preflight.features import try_features
from envelope.preflight.findings import Finding, Level, fail, ok, warn
from envelope.preflight.hostrules import read_rules
from envelope.preflight.login import device_addresses
from envelope.preflight.machine import ipv6_is_on
from envelope.preflight.packets import Target
from envelope.preflight.sandbox import CLIENTS, Sandbox
from envelope.preflight.strangers import judge_diversions, judge_mixture
from envelope.preflight.targets import grant_targets, named_ports, service_targets
from envelope.preflight.wire import Wire
from envelope.runtime.inbound import serving_ports
from envelope.runtime.namespaces import die_with_parent, enter_own_network

_GRANT_LASTS: Final = 60.0
_UNTRIED: Final = "run the check as root on the host itself, so that it may make network namespaces"


class Trial:
    """One service's firewall in networks of our own; the creation reads the real one."""

    def __init__(self, reactor: Any, config: Config, environ: Mapping[str, str]) -> None:
        self._reactor = reactor
        self._config = config
        self._path = environ.get("PATH", "")
        self.found: list[Finding] = []
        both = ipv6_is_on(config.device) and len(families_of_this_kernel()) > 1
        self._versions: tuple[Literal[4, 6], ...] = (4, 6) if both else (4,)
        self._addresses = device_addresses()
        self._serving = serving_ports()
        self._rules = read_rules(config, self._path)
        self._devices = [name for _, name in socket.if_nameindex()]

    async def run(self) -> None:
        """Try all of it; the findings are in `found`."""
        for line in self._rules.unread:
            self.found.append(warn(
                f"rules cannot be read: {line}",
                "run the check as root and with the tool, or look whether they drop what a grant "
                "opens"))
        self.found.append(judge_diversions(
            self._rules, self._config.device, self._addresses))
        self.found.append(judge_mixture(self._rules))
        try:
            enter_own_network()
            # Where the kernel takes a new network's privileges away again, this fails.
            Wire().close()
            features = try_features(self._config, self._path)
            self.found += features
            if not features or any(each.level == Level.FAIL for each in features):
                # A start fails, so there are no rules of ours to try.
                return
            if self._config.device == "lo":
                self.found.append(warn("rules of others cannot be tried: no packet comes in by lo",
                                       "name the public device with --device"))
                return
            enter_own_network()
            sandbox = self._make_sandbox()
        except OSError as error:
            self.found.append(warn(
                "whether the kernel can do what the rules need, and whether rules of others drop "
                "what a grant opens, cannot be tried: no network namespace can be made "
                f"({error.strerror})", _UNTRIED))
            return
        try:
            await self._try_rules(sandbox)
        finally:
            sandbox.close()

    def _make_sandbox(self) -> Sandbox:
        text = "\n".join(part.text for part in self._rules.parts())
        words = set(re.findall(r"[^\s\"{},;]+", text))
        named = [name for name in self._devices if name in words]
        own = self._addresses.get(self._config.device, set[Address]())
        return Sandbox(self._config.device, own, self._versions, named)

    async def _try_rules(self, sandbox: Sandbox) -> None:
        for line in self._rules.load():
            self.found.append(warn(
                f"rules of others could not be loaded into a network of its own: {line}; so they "
                "are not part of what follows", "look whether they drop what a grant opens"))
        opened = service_targets(self._config, self._versions)
        granted = grant_targets(
            self._config, self._serving, self._versions,
            named_ports(part.text for part in self._rules.parts()))
        sandbox.serve([*opened, *granted])
        own = {spec.port for spec in self._config.listen if spec.port}
        try:
            firewall = make_firewall(
                self._reactor, self._config, FirewallMetrics(CollectorRegistry()), self._path)
            await firewall.open(tuple(PortRange("tcp", port, port) for port in sorted(own)))
        except FirewallError as error:
            self.found.append(fail(f"the rules of a start cannot be installed: {error}",
                                   "mend what the tool says"))
            return
        try:
            await self._let_in(firewall)
        except FirewallError as error:
            self.found.append(fail(f"no client can be let in: {error}", "mend what the tool says"))
        else:
            missing = {*opened, *granted} - sandbox.reached([*opened, *granted])
            missing -= sandbox.reached_slowly(missing)
            self.found += list(self._judge(sandbox, missing, {*opened}, len(granted)))
        try:
            await firewall.close()
        except FirewallError as error:
            self.found.append(fail(f"the rules of a start cannot be taken away again: {error}",
                                   "mend what the tool says"))

    async def _let_in(self, firewall: IFirewall) -> None:
        end = self._reactor.seconds() + _GRANT_LASTS
        for version in self._versions:
            for client in CLIENTS[version]:
                # The last service has the ports of all.
                grant = GrantId(self._config.network_of(client), len(self._config.services) - 1)
                await firewall.allow(grant, end)

    def _judge(
        self, sandbox: Sandbox, missing: set[Target], opened: set[Target], granted: int
    ) -> Iterator[Finding]:
        nft = find("nft", self._path, self._config.nft)
        guilty = blame(missing, chains(self._rules, nft), sandbox.reached) if missing else {}
        by_chain: dict[tuple[str, bool, bool], list[Target]] = {}
        for target in sorted(missing):
            chain = guilty.get(target)
            name = "" if chain is None else chain.name
            key = (name, chain is not None and chain.diverts, target in opened)
            by_chain.setdefault(key, []).append(target)
        for (name, diverts, is_service), targets in by_chain.items():
            yield _line(name, diverts, is_service, ", ".join(map(str, targets)))
        if not missing:
            yield ok(f"packets to the service and to {granted} ports that a grant opens pass the "
                     "rules of others")


def _line(name: str, diverts: bool, is_service: bool, targets: str) -> Finding:
    if diverts:
        return warn(f"{name} diverts {targets}: a grant does not decide over it",
                    "remove that rule, or guard the port where it leads to")
    by = name or "rules of others, in which chain was not found"
    why = "what one table accepts, another one may still drop"
    if is_service:
        return fail(f"clients cannot reach the service: {targets} by {by}",
                    f"let it pass there too: {why}")
    return fail(f"what a grant opens is dropped: {targets} by {by}",
                f"let it pass there too, or leave it out with --grant-port: {why}")


def main() -> None:
    """Run a trial: `sys.argv` has the id of the process to end with, and the service's options."""
    die_with_parent(int(sys.argv[1]))
    # The service's firewall has no other use for the lock than this package's own commands.
    CLEAN_ENVIRONMENT.update(NO_LOCK)
    config = parse(sys.argv[2:], os.environ)
    # Its children are collected by it, so it runs from the beginning.
    from twisted.internet import reactor

    untyped: Any = reactor
    failures: list[Failure] = []

    def begin() -> None:
        trial = Trial(untyped, config, os.environ)

        def end(result: object) -> None:
            if isinstance(result, Failure):
                failures.append(result)
            else:
                print(json.dumps([[str(each.level), each.what, each.do]  # noqa: T201
                                  for each in trial.found]))
            untyped.stop()

        Deferred.fromCoroutine(trial.run()).addBoth(end)

    untyped.callWhenRunning(begin)
    untyped.run()
    if failures:
        failures[0].raiseException()


if __name__ == "__main__":
    main()
