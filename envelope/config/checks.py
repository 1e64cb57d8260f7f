"""Checks of all options together: contradictions, missing ones, and what this machine lacks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from twisted.logger import Logger
from twisted.python import usage

from envelope import devices
from envelope.config import Config, values
from envelope.devices import Device, Finder

_log = Logger(namespace="envelope.config")


@dataclass(frozen=True, slots=True)
class Machine:
    """The two questions about the machine: which device has a name, can a file be executed."""

    find_device: Finder
    can_run: Callable[[Path], bool]


def _can_run(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


THIS_MACHINE: Final = Machine(devices.find, _can_run)


def checked(given: Mapping[str, Any], machine: Machine) -> Config:
    """The settings with `given`, values by field name, and the defaults of all other fields.

    Without required tokens, `firewall` becomes "none" unless it is given. Raises `UsageError` with
    one line when options contradict each other, when one is missing, or when `machine` does not
    have a device or tool that they name. Devices have the names that their packets bear.
    """
    settings = dict(given)
    if (
        not settings.get("token_required", True)
        and settings.setdefault("firewall", "none") != "none"
    ):
        raise usage.UsageError(
            f"--firewall={settings['firewall']} needs tokens: "
            "leave out --token-required=false, or say --firewall=none"
        )
    config = Config(**settings)
    if "tls" in settings and config.cert is None:
        raise usage.UsageError("--tls needs --cert and --key")
    if config.tx_max_rate is not None and config.tx_device is None:
        raise usage.UsageError("--tx-max-rate needs --tx-device")
    if config.idle is not None and config.firewall == "none":
        _log.warn("--idle ends no session: with --firewall=none nothing is counted")
    _check_keys(config)
    _check_tools(config, machine)
    return _with_devices(config, machine.find_device)


def _check_keys(config: Config) -> None:
    if (config.cert is None) != (config.key is None):
        present, absent = ("--cert", "--key") if config.key is None else ("--key", "--cert")
        raise usage.UsageError(f"{present} needs {absent} as well")
    if config.jwks_ca is not None and config.verify_jwks_url is None:
        raise usage.UsageError("--jwks-ca needs --verify-jwks-url")
    names = [each.name for each in config.subject]
    for name in names:
        if names.count(name) > 1:
            raise usage.UsageError(
                f"--subject: {name!r} is given twice: put all of its ports into one, joined by +"
            )
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


def _check_tools(config: Config, machine: Machine) -> None:
    tools = {"iptables": config.iptables, "ip6tables": config.ip6tables, "nft": config.nft}
    for name, path in tools.items():
        if path is not None and not machine.can_run(path):
            raise usage.UsageError(f"--{name}: {str(path)!r} does not exist or cannot be executed")
    if config.firewall == "none":
        return
    for spec in config.listen:
        if not spec.clients_have_addresses:
            raise usage.UsageError(
                f"--listen={spec}: clients of a UNIX socket have no address to let in; "
                "put haproxy: before it, or say --firewall=none"
            )


def _with_devices(config: Config, find: Finder) -> Config:
    if config.tx_device is not None:
        config = replace(config, tx_device=_real(config.tx_device, "--tx-device", find).name)
    if config.firewall == "none":
        return config
    device = _real(config.device, "--device", find)
    # With the operator's own baseline, no rule of ours names the device.
    if device.master and config.baseline == "service":
        master = find(device.master)
        if master is not None:
            raise usage.UsageError(
                f"--device: {device.name} is part of {master}, whose name its packets bear; "
                f"say --device={master.name}"
            )
    return replace(config, device=device.name)


def _real(name: str, option: str, find: Finder) -> Device:
    """The device that has this name, or this alternative name; the log says which."""
    try:
        device = find(name)
    except OSError as error:
        raise usage.UsageError(
            f"{option}: the kernel does not show its network devices: {error.strerror}"
        ) from None
    if device is None:
        raise usage.UsageError(f"{option}: there is no network device {name!r}")
    if device.name != name:
        try:
            values.device(device.name)
        except ValueError:
            raise usage.UsageError(
                f"{option}: {name!r} is another name of {device.name!r}, "
                "which a rule cannot hold: rename the device"
            ) from None
        _log.info("{option}={name} is another name of {device}",
                  option=option, name=name, device=device.name)
    return device
