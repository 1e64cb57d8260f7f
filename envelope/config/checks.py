"""Checks of all options together: contradictions, missing ones, and what this machine lacks."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.python import usage

from envelope.config import Config


@dataclass(frozen=True, slots=True)
class Machine:
    """The two questions about the machine: does a network device exist, can a file be executed."""

    has_device: Callable[[str], bool]
    can_run: Callable[[Path], bool]


def _has_device(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def _can_run(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


THIS_MACHINE: Final = Machine(_has_device, _can_run)


def checked(given: Mapping[str, Any], machine: Machine) -> Config:
    """The settings with `given`, values by field name, and the defaults of all other fields.

    Without required tokens, `firewall` becomes "none" unless it is given. Raises `UsageError` with
    one line when options contradict each other, when one is missing, or when `machine` does not
    have a device or tool that they name.
    """
    values = dict(given)
    if not values.get("token_required", True) and values.setdefault("firewall", "none") != "none":
        raise usage.UsageError(
            f"--firewall={values['firewall']} needs tokens: "
            "leave out --token-required=false, or say --firewall=none"
        )
    config = Config(**values)
    if "tls" in values and config.cert is None:
        raise usage.UsageError("--tls needs --cert and --key")
    if config.tx_max_rate is not None and config.tx_device is None:
        raise usage.UsageError("--tx-max-rate needs --tx-device")
    _check_keys(config)
    _check_machine(config, machine)
    return config


def _check_keys(config: Config) -> None:
    if (config.cert is None) != (config.key is None):
        present, absent = ("--cert", "--key") if config.key is None else ("--key", "--cert")
        raise usage.UsageError(f"{present} needs {absent} as well")
    if config.jwks_ca is not None and config.verify_jwks_url is None:
        raise usage.UsageError("--jwks-ca needs --verify-jwks-url")
    if not config.token_required:
        return
    required = {
        "--verify-key": config.verify_key or config.verify_jwks_url,
        "--machine": config.machine,
        "--subject": config.subject,
    }
    for name, value in required.items():
        if not value:
            raise usage.UsageError(
                f"{name} is missing: access tokens cannot be checked without it "
                "(or say --token-required=false)"
            )


def _check_machine(config: Config, machine: Machine) -> None:
    tools = {"iptables": config.iptables, "ip6tables": config.ip6tables, "nft": config.nft}
    for name, path in tools.items():
        if path is not None and not machine.can_run(path):
            raise usage.UsageError(f"--{name}: {str(path)!r} does not exist or cannot be executed")
    if config.tx_device is not None and not machine.has_device(config.tx_device):
        raise usage.UsageError(f"--tx-device: there is no network device {config.tx_device!r}")
    if config.firewall == "none":
        return
    for spec in config.listen:
        if not spec.clients_have_addresses:
            raise usage.UsageError(
                f"--listen={spec}: clients of a UNIX socket have no address to let in; "
                "put haproxy: before it, or say --firewall=none"
            )
    if not machine.has_device(config.device):
        raise usage.UsageError(f"--device: there is no network device {config.device!r}")
