"""The units of deploy/, judged by systemd itself where its tool is."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from envelope.config import OPTIONS, options
from envelope.config.checks import Machine
from envelope.devices import Device
from tests.support.environment import leave_out

DEPLOY = Path(__file__).parent.parent / "deploy"
UNIT = DEPLOY / "envelope.service"
OLDER = DEPLOY / "envelope.service.d" / "systemd-252.conf"
CREDENTIALS = DEPLOY / "envelope.service.d" / "credentials.conf"
# What systemd 252 calls the lines that it does not know, by the first version that does.
UNKNOWN = {253: ("Failed to parse service type, ignoring: notify-reload",),
           254: ("Unknown key 'RestartMode'", "Unknown key 'RestartSteps'",
                 "Unknown key 'RestartMaxDelaySec'")}
# Of 10; below 2 systemd calls it OK. The network and its capability are the rest.
MOST_EXPOSED = 2.0


def section(path: Path, name: str) -> dict[str, str]:
    """The last value of each setting."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return dict(parser[name])


def systemd() -> int:
    """The version of systemd-analyze."""
    if shutil.which("systemd-analyze") is None:
        # Not among what CI installs: the package may replace a machine's init.
        leave_out("systemd-analyze is not installed")
    done = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True,
                          check=True, timeout=60)
    return int(done.stdout.split()[1])


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder of units as an operator would have it, with a server that is guarded."""
    program = tmp_path / "twistd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = UNIT.read_text().replace("/opt/envelope/bin/twistd", str(program))
    unit = re.sub(r"^Documentation=.*\n", "", unit, flags=re.MULTILINE)
    (tmp_path / "envelope.service").write_text(unit)
    shutil.copy(DEPLOY / "envelope.socket", tmp_path)
    server = "[Service]\nExecStart=/bin/sleep infinity\n"
    (tmp_path / "server.service").write_text((DEPLOY / "guarded-server.conf").read_text() + server)
    return tmp_path


@pytest.mark.process
@pytest.mark.parametrize("name", ["envelope.service", "envelope.socket", "server.service"])
def test_systemd_finds_nothing_to_complain_of(units: Path, name: str) -> None:
    version = systemd()
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", units / name],
        capture_output=True, text=True, check=False, timeout=60)
    unknown = [each for since, lines in UNKNOWN.items() if version < since for each in lines]
    ours = [line for line in done.stderr.splitlines()
            if str(units) in line and not any(each in line for each in unknown)]
    assert ours == []


@pytest.mark.process
def test_systemd_calls_it_little_exposed(units: Path) -> None:
    systemd()
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager",
         units / "envelope.service"],
        capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= MOST_EXPOSED


def test_it_is_active_once_clients_can_connect_and_stays_behind_it() -> None:
    service, unit = section(UNIT, "Service"), section(UNIT, "Unit")
    assert service["Type"] == "notify-reload"
    assert "ExecReload" not in service
    assert section(OLDER, "Service")["Type"] == "notify"
    assert section(OLDER, "Service")["ExecReload"] == "/bin/kill -HUP $MAINPID"
    server = section(DEPLOY / "guarded-server.conf", "Unit")
    assert server == {"Requires": "envelope.service", "After": "envelope.service"}
    assert unit["StartLimitIntervalSec"] == "0"
    assert (service["Restart"], service["RestartMode"]) == ("on-failure", "direct")


def test_credentials_are_what_the_options_name() -> None:
    text = CREDENTIALS.read_text()
    loaded = re.findall(r"^LoadCredential=([\w.]+):/etc/envelope/", text, re.MULTILINE)
    named = dict(re.findall(r"(ENVELOPE_\w+)=%d/([\w.]+)", text))
    assert sorted(named.values()) == sorted(loaded)
    assert named.keys() <= {option.variable for option in OPTIONS}


def test_the_variables_of_the_example_are_options() -> None:
    """And are read as one command line would be."""
    given = dict(re.findall(r"^#   (ENVELOPE_\w+)=(\S+)$", UNIT.read_text(), re.MULTILINE))
    assert len(given) >= 6
    machine = Machine(lambda name: Device(2, str(name)), lambda _: True)
    config = options.parse([], given, machine)
    assert str(config.cert) == given["ENVELOPE_CERT"]


def test_the_socket_is_what_an_endpoint_description_names() -> None:
    socket = section(DEPLOY / "envelope.socket", "Socket")
    assert (socket["ListenStream"], socket["BindIPv6Only"]) == ("[::]:8880", "both")
    text = (DEPLOY / "envelope.socket").read_text()
    (listen,) = re.findall(r"ENVELOPE_LISTEN=(\S+)", text)
    config = options.parse(["--token-required=false", f"--listen={listen}"], {})
    (spec,) = config.listen
    assert spec.clients_have_addresses
