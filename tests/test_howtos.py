"""Commands and files on the how-to pages, each by the program that it is for."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from envelope.config import Config, options
from envelope.config.checks import Machine
from envelope.devices import Device
from tests.support.environment import leave_out, need
from tests.support.pages import ENVIRON, PATIENCE, ROOT, all_of, block
from tests.support.polling import wait_until
from tests.support.unpacked import UNPACKED, promtool, unpacked
from tests.support.unprivileged import need_root

UNIT = block("docs/systemd.md", "useradd")
HOOK = block("docs/rotate.md", "install -m 0640")
LOGROTATE = block("docs/operations.md", "/var/log/envelope.log {")
DOCKER = block("docs/operations.md", "docker build")
KUBECTL = block("docs/kubernetes.md", "kubectl create secret")
PROMETHEUS = block("docs/monitoring.md", "rule_files")
MEASUREMENT, PAIR = all_of("docs/clients.md", "ini")
SUBJECTS = block("docs/rules.md", "--subject=ndt=")
TUNNEL = block("docs/status.md", "ssh -L")
MACHINE = Machine(lambda name: Device(2, str(name)), lambda _: True)

pytestmark = pytest.mark.process


def run(*words: str | Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its output is captured text."""
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE,
                          **how)


def run_with_own_etc(folder: Path, *script: str) -> str:
    """Run these lines as root, over a copy of /etc that ends with them; what they print."""
    need_root("only root can make users and groups")
    if run("unshare", "-m", "true").returncode:
        leave_out("no mount namespace can be made here")
    done = run("unshare", "-m", "sh", "-euc", "\n".join([
        "mkdir etc", "mount -t tmpfs tmpfs etc", "cp -a /etc/. etc", "mount --bind etc /etc",
        "mount -t tmpfs tmpfs /opt", *script]), cwd=folder, env={**ENVIRON, "SYSTEMD_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_unit_is_installed_and_enabled(tmp_path: Path) -> None:
    """With systemctl as in a chroot: it changes files, and starts nothing."""
    if shutil.which("systemctl") is None:
        leave_out("systemctl is not installed")
    for name in ("guarded-server.conf", "envelope.service"):
        shutil.copy(ROOT / "deploy" / name, tmp_path)
    (tmp_path / "environment").write_text("ENVELOPE_DEVICE=eth0\n")
    printed = run_with_own_etc(
        tmp_path, "install -D -m 0644 -t /opt/envelope/lib/systemd/system envelope.service",
        UNIT.text, "stat -c '%a %U %G' /etc/envelope/environment", "cd /etc/systemd/system",
        "readlink -e multi-user.target.wants/envelope.service",
        "cat SERVER.service.d/envelope.conf")
    assert printed == "\n".join([
        "640 root envelope", "/opt/envelope/lib/systemd/system/envelope.service",
        (ROOT / "deploy/guarded-server.conf").read_text()])


def test_a_renewed_certificate_is_put_where_the_service_reads_it(tmp_path: Path) -> None:
    lineage = tmp_path / "lineage"
    lineage.mkdir()
    for name in ("fullchain", "privkey"):
        (lineage / f"{name}.pem").write_text(f"{name}\n")
    printed = run_with_own_etc(
        tmp_path, "groupadd envelope", "mkdir -p /etc/envelope", f"RENEWED_LINEAGE={lineage}",
        HOOK.text, "cd /etc/envelope", "cat cert.pem key.pem", "stat -c '%a %G' cert.pem key.pem")
    assert printed == "fullchain\nprivkey\n640 envelope\n640 envelope\n"


def test_logrotate_renames_the_log_and_has_it_opened_again(tmp_path: Path) -> None:
    """The service runs in the background, as the pid file says that the block names."""
    assert unpacked("logrotate", "--version").returncode == 0
    text = LOGROTATE.text
    for path in ("/var/log/envelope.log", "/run/envelope/twistd.pid"):
        assert path in text
        text = text.replace(path, str(tmp_path / Path(path).name))
    (tmp_path / "logrotate.conf").write_text(text)
    # It reads no file that others may write.
    (tmp_path / "logrotate.conf").chmod(0o644)
    log, pid = tmp_path / "envelope.log", tmp_path / "twistd.pid"
    started = run("twistd", f"--logfile={log}", f"--pidfile={pid}", "envelope",
                  "--token-required=false", "--listen=127.0.0.1:0", "--admin=none",
                  "--status=none", "--control=none", cwd=tmp_path, env=ENVIRON)
    assert started.returncode == 0, started.stderr
    process = int(pid.read_text())
    try:
        done = run(UNPACKED, "logrotate", "--force", "--state", tmp_path / "state",
                   tmp_path / "logrotate.conf")
        assert (done.stderr, done.returncode) == ("", 0)
        wait_until(log.exists, "the log is not opened again")
    finally:
        ended = os.pidfd_open(process)
        os.kill(process, signal.SIGTERM)
        # The last lines are written after the pid file is removed.
        stopped = select.select([ended], [], [], PATIENCE)[0]
        os.close(ended)
    assert stopped, "the service does not stop"
    assert "ready" in Path(f"{log}.1").read_text()
    assert "Main loop terminated" in log.read_text()


def test_the_container_gets_options_that_exist() -> None:
    """What stands behind the image; where the engine's command is, it judges what is before it."""
    command = DOCKER.text.replace("\\\n", " ").splitlines()[-1]
    words = shlex.split(command)
    given = words[words.index("example/envelope") + 1:]
    checked = options.parse(given, {}, MACHINE)
    assert (checked.machine, str(checked.device)) == ("mlab1.lga03", "eth0")
    if shutil.which("docker") is None:
        leave_out("docker is not installed")
    done = run("sh", "-c", DOCKER.text, cwd=ROOT,
               env={**ENVIRON, "DOCKER_HOST": "unix:///nonexistent/docker.sock"})
    assert done.stderr.count("Cannot connect to the Docker daemon") == 2, done.stderr
    assert "unknown" not in done.stderr


def test_the_secrets_are_those_that_the_pod_mounts(tmp_path: Path) -> None:
    """The objects are made without a cluster."""
    if shutil.which("kubectl") is None:
        leave_out("kubectl is not installed")
    made = run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
               "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test", "-keyout", "key.pem",
               "-out", "chain.pem", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    (tmp_path / "jwk_sig_EdDSA_KID.pub").write_text("{}")
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    create, show, apply = [], [], []
    for line in KUBECTL.text.splitlines():
        words = shlex.split(line, comments=True)
        {"create": create, "kustomize": show, "apply": apply}[words[1]].append(words)
    secrets = {}
    for words in create:
        done = run(*words, "--dry-run=client", "--output=json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        secret = json.loads(done.stdout)
        secrets[secret["metadata"]["name"]] = sorted(secret["data"])
    ((*_, folder),) = show
    assert apply == [["kubectl", "apply", "-k", folder]]
    done = run("kubectl", "kustomize", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert secrets.keys() == set(re.findall(r"secretName: (\S+)", done.stdout))
    for name in ("certs/tls.crt", "certs/tls.key", "verify/jwk_sig_EdDSA_KID.pub"):
        assert f" /{name}\n" in done.stdout
        assert Path(name).name in [*secrets["envelope-tls"], *secrets["envelope-verify-keys"]]


def test_prometheus_reads_its_configuration(tmp_path: Path) -> None:
    shutil.copy(ROOT / "deploy/prometheus/envelope.rules.yml", tmp_path)
    (tmp_path / "prometheus.yml").write_text(PROMETHEUS.text)
    done = promtool("check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


@pytest.mark.parametrize("text", [
    f"# measure.service\n{MEASUREMENT}", PAIR], ids=["one unit", "two units"])
def test_systemd_reads_the_units_of_a_client(tmp_path: Path, text: str) -> None:
    if shutil.which("systemd-analyze") is None:
        leave_out("systemd-analyze is not installed")
    units = re.split(r"^# (\S+\.service)\n", text, flags=re.MULTILINE)[1:]
    for name, unit in zip(units[::2], units[1::2], strict=True):
        # Programs that exist: it looks for them.
        unit = unit.replace("=envelope exec", "=/bin/echo exec")
        unit = unit.replace("/usr/local/bin/measure", "/bin/true")
        (tmp_path / name).write_text(unit)
    for name in units[::2]:
        done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=yes",
                   tmp_path / name)
        assert [line for line in done.stderr.splitlines() if str(tmp_path) in line] == []


def test_the_subjects_of_the_rules_page_are_options() -> None:
    given = [*SUBJECTS.text.split(), "--verify-key=key.pub", "--machine=m"]
    assert len(options.parse(given, {}, MACHINE).subject) == 2


def test_the_tunnel_leads_to_the_status_page() -> None:
    """As ssh reads it; it would then connect."""
    if shutil.which("ssh") is None:
        need("ssh is not installed")
    ssh, *words = shlex.split(TUNNEL.text)
    done = run(ssh, "-G", "-F", os.devnull, *words)
    assert done.returncode == 0, done.stderr
    (status,) = Config().status
    found = re.search(r"^localforward \d+ \[(.+)\]:(\d+)$", done.stdout, re.MULTILINE)
    assert found is not None
    assert str(status) == f"tcp:{found[2]}:interface={found[1]}"
