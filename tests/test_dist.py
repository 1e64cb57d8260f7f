"""What `tools/dist` builds can be installed, and runs from nothing but itself."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.request
import venv
from pathlib import Path
from typing import IO

import pytest

from envelope import __version__, commands
from tests.support.environment import need
from tests.support.pages import ENVIRON, block
from tests.support.wheels import needed_by, pack

ROOT = Path(__file__).parent.parent
TWISTD = "from twisted.scripts.twistd import run; run()"

INSTALLATION = block("docs/install.md", "python3 -m venv /opt/envelope")
# An /opt of its own for a shell, with what else is in the machine's.
OWN_OPT = """
set -eu
mkdir old
mount --rbind /opt old
mount -t tmpfs tmpfs /opt
for each in old/*/; do
    [ -d "$each" ] || continue
    [ "$each" != old/envelope/ ] || continue
    mkdir "/opt/$(basename "$each")"
    mount --rbind "$each" "/opt/$(basename "$each")"
done
"""

pytestmark = pytest.mark.process


def build(folder: Path) -> dict[str, Path]:
    """The sdist and the wheel, by the end of their names."""
    done = subprocess.run([sys.executable, ROOT / "tools/dist", folder], capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {path.suffix: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel; dependencies are taken from the tests' own.

    The tests' own has envelope in it too, but as a line of a .pth file, which is read only in the
    folder where an interpreter looks for packages first.
    """
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps",
         "--no-index", "--disable-pip-version-check", built[".whl"]],
        check=True, capture_output=True, timeout=120)
    (packages,) = folder.glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    return folder


def run(installed: Path, *arguments: str) -> str:
    done = subprocess.run([installed / "bin" / "python", *arguments], cwd=installed,
                          capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def test_the_same_sources_give_the_same_bytes(built: dict[str, Path], tmp_path: Path) -> None:
    again = build(tmp_path)
    assert {suffix: hashlib.sha256(path.read_bytes()).digest() for suffix, path in built.items()} \
        == {suffix: hashlib.sha256(path.read_bytes()).digest() for suffix, path in again.items()}


def test_the_sdist_holds_what_git_tracks(built: dict[str, Path]) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True,
                             check=True, timeout=60).stdout.splitlines()
    with tarfile.open(built[".gz"]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    missing = {name for name in tracked if (ROOT / name).is_file()} - held
    assert {name for name in missing if not name.startswith(".")} == set()
    assert {name for name in missing if "/" not in name} <= {
        ".dockerignore", ".editorconfig", ".gitignore"}


def test_the_version_is_the_programs(installed: Path) -> None:
    assert run(installed, "bin/envelope", "--version") == f"{__version__}\n"


def test_twistd_finds_the_plugin_and_writes_its_cache(installed: Path) -> None:
    assert "envelope" in run(installed, "-c", TWISTD, "--help")
    (packages,) = installed.glob("lib/*/site-packages")
    assert (packages / "twisted/plugins/dropin.cache").exists()


def test_what_was_installed_is_what_runs(installed: Path) -> None:
    told = run(installed, "-c", "import envelope, twisted.plugins.envelope_plugin as plugin\n"
               "print(envelope.__file__, plugin.__file__)")
    assert all(path.startswith(f"{installed}/") for path in told.split())


@pytest.mark.parametrize(("path", "command"), [
    ("share/man/man1/envelope.1", ("man",)),
    ("share/bash-completion/completions/envelope", ("completion", "bash")),
    ("share/zsh/site-functions/_envelope", ("completion", "zsh")),
    ("share/fish/vendor_completions.d/envelope.fish", ("completion", "fish")),
])
def test_what_commands_print_is_installed(
    installed: Path, path: str, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main([*command]) == 0
    assert (installed / path).read_text() == capsys.readouterr().out


def test_the_unit_is_installed(installed: Path) -> None:
    unit = (installed / "lib/systemd/system/envelope.service").read_text()
    assert unit == (ROOT / "deploy/envelope.service").read_text()


def test_the_debian_package_is_told_all_that_its_recipe_asks_for() -> None:
    recipe = (ROOT / "deploy/debian/nfpm.yaml").read_text()
    told = re.findall(r'"([A-Z]+)": ', (ROOT / "tools/deb").read_text())
    assert set(re.findall(r"\$\{(\w+)\}", recipe)) == set(told)
    for path in re.findall(r"(?:src: |: )((?:deploy/)[\w./]+)", recipe):
        assert (ROOT / path).exists(), path


def test_it_is_installed_as_the_page_says(built: dict[str, Path], tmp_path: Path) -> None:
    """In a mount namespace, from wheels of what the tests have."""
    how = next((flags for flags in ("-m", "-Urm") if subprocess.run(
        ["unshare", flags, "true"], capture_output=True, check=False, timeout=60
    ).returncode == 0), None)
    if how is None or not Path("/opt").is_dir():
        need("no mount namespace can be made here, or there is no /opt")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for package in needed_by("envelope").values():
        pack(package, wheels)
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    shutil.copy(built[".whl"], tmp_path)
    listed = re.findall(r"`((?:lib|share)/[\w./-]+)`", (ROOT / "docs/install.md").read_text())
    assert len(listed) >= 5
    done = subprocess.run(
        ["unshare", how, "sh", "-c", "\n".join([
            OWN_OPT, INSTALLATION.text, "cd /opt/envelope", f"ls {' '.join(listed)}",
            "ls lib/python*/site-packages/twisted/plugins/dropin.cache",
            "bin/envelope --version", "bin/pip uninstall -qy envelope",
            f"ls {' '.join(listed)} 2>/dev/null | wc -l"])],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
        env={**ENVIRON, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_NO_COMPILE": "1",
             "PIP_CONFIG_FILE": os.devnull})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [__version__, "0"]


def admin_port(log: IO[str]) -> int:
    for line in log:
        if found := re.search(r"metrics and health on .*port=(\d+)", line):
            return int(found[1])
    raise AssertionError("the service did not start")


def test_the_service_starts_and_stops(installed: Path) -> None:
    process = subprocess.Popen(
        [installed / "bin" / "python", "-c", TWISTD, "-n", "--pidfile=", "envelope",
         "--firewall=none", "--token-required=false", "--listen=127.0.0.1:0",
         "--admin=tcp:0:interface=127.0.0.1", "--status=none"],
        cwd=installed, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        try:
            port = admin_port(process.stdout)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=10) as answer:
                assert answer.status == 200
            process.send_signal(signal.SIGTERM)
            assert process.stdout.read()
            assert process.wait(20) == 0
        finally:
            process.kill()
