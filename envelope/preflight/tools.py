"""Whether the firewall's tools can read this network's rules. They are run as the service does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from envelope.config import Config
from envelope.firewall import FirewallError
from envelope.firewall.errors import ToolFailed, ToolTimeout
from envelope.firewall.iptables import families_of_this_kernel
from envelope.firewall.iptables.tools import Paths
from envelope.firewall.process import find_tool, run
from envelope.preflight.findings import Finding, fail, ok, warn
from envelope.preflight.privileges import explained

# Seconds.
_PATIENCE: Final = 5.0


async def find_tools(
    reactor: Any, config: Config, environ: Mapping[str, str], patience: float = _PATIENCE
) -> list[Finding]:
    """Fail for a tool that is missing, fails, or does not answer within `patience` seconds.

    Warn of an iptables-save that fails where a start can do without it.
    """
    found = []
    for name, commands in _commands(config, environ.get("PATH", "")):
        if isinstance(commands, str):
            found.append(fail(commands, "install it, or say where it is with the option of its "
                                        "name"))
            continue
        try:
            version = ""
            for argv in commands:
                done = await run(reactor, argv, patience)
                version = version or done.output.decode("utf-8", "replace").strip()
        except ToolFailed as error:
            if argv[0] == f"{name}-save" and not isinstance(error, ToolTimeout) and (
                    await _prints_input(reactor, name, patience)):
                found.append(warn(
                    f"not every rule can be printed: {error}",
                    f"a start reads INPUT and its own chains with {Path(name).name} -S; see what "
                    "nft list ruleset shows"))
                continue
            why = explained(FirewallError(str(error)), config, environ)
            found.append(fail(f"{name} does not work: {why}",
                              f"run {' '.join(argv)} as the service's user, and mend that"))
        else:
            shown = version.partition("\n")[0][:80] or "it tells no version"
            found.append(ok(f"{name} reads the rules ({shown})"))
    return found


async def _prints_input(reactor: Any, tool: str, patience: float) -> bool:
    """Whether a tool can print INPUT; iptables-legacy would make the table, and is not asked."""
    try:
        version = await run(reactor, (tool, "--version"), patience)
        if b"nf_tables" not in version.output:
            return False
        await run(reactor, (tool, "-S", "INPUT"), patience)
    except ToolFailed:
        return False
    return True


def _commands(
    config: Config, search_path: str
) -> list[tuple[str, str | list[tuple[str, ...]]]]:
    """The commands that try each tool, the first of which prints its version; or what is missing.
    """
    if config.firewall == "none":
        return []
    if config.firewall == "nftables":
        try:
            nft = find_tool("nft", config.nft, search_path)
        except FirewallError:
            # The check of its privileges says so.
            return []
        return [(str(nft), [(str(nft), "--version"), (str(nft), "list", "tables")])]
    listed: list[tuple[str, str | list[tuple[str, ...]]]] = []
    for family in families_of_this_kernel():
        try:
            paths = Paths.find(config, family, search_path)
        except FirewallError as error:
            listed.append((family.label, str(error)))
        else:
            listed.append((str(paths.tool), _of_iptables(paths.save, paths.restore)))
    return listed


def _of_iptables(save: Path, restore: Path) -> list[tuple[str, ...]]:
    # Not one table by name: iptables-legacy-save would make it.
    return [(str(save), "--version"), (str(save),), (str(restore), "--version")]
