"""The control socket of a running service, and the commands that use it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.harness import PATIENCE, Rig
from tests.support.loopbackservice import twistd
from tests.support.unprivileged import as_nobody, public_folder

pytestmark = pytest.mark.kernel

ENVELOPE = (sys.executable, str(Path(sys.executable).with_name("envelope")))


def run(rig: Rig, *argv: str) -> tuple[int, str, str]:
    """A command on the service's host: its exit status, its output and its errors."""
    done = rig.lab.host.run([*ENVELOPE, *argv])
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
def test_an_operator_lists_and_ends_sessions(rig: Rig) -> None:
    """At the default path; the grants are gone when a revocation is answered."""
    service = rig.start("--max-clients=4")
    clients = [rig.client(rig.token()) for _ in range(2)]
    clients.append(rig.client(rig.token(), to=rig.lab.host.address6))
    assert [client.event()["status"] for client in clients] == [101] * 3
    status, printed, _ = run(rig, "sessions", "--json")
    assert status == 0
    sessions = json.loads(printed)
    assert len({session["id"] for session in sessions}) == 3
    assert {session["address"] for session in sessions} == {
        str(rig.lab.client().address4), str(rig.lab.client().address6)}
    _, printed, _ = run(rig, "sessions")
    assert all(session["id"] in printed for session in sessions)
    _, printed, _ = run(rig, "status", "--json")
    state = json.loads(printed)
    assert [session["id"] for session in state["sessions"]] == [one["id"] for one in sessions]
    # Tokens with the same jti over both families are one visitor.
    assert state["slots"] == {"used": 2, "total": 4}
    # The clients connect at the same time, in any order.
    sessions.sort(key=lambda session: ":" in session["address"])
    first, second, third = (session["id"] for session in sessions)
    status, _, errors = run(rig, "revoke", first, "nosuch")
    assert status == 1
    assert errors == "envelope revoke: there is no session nosuch (1 ended)\n"
    assert first not in run(rig, "sessions")[1]
    assert len(rig.grants().splitlines()) == 2  # the other session of its network is still open
    network = f"{rig.lab.client().address4}/24"
    assert run(rig, "revoke", "--network", network) == (0, "1 session ended\n", "")
    assert len(rig.grants().splitlines()) == 1
    assert run(rig, "revoke", third) == (0, "1 session ended\n", "")
    assert rig.grants() == ""
    assert run(rig, "revoke", second)[0] == 1
    for client in clients:
        assert client.event() == {"event": "close", "code": 4001, "reason": "revoked"}
    assert service.stop() == 0
    status, _, errors = run(rig, "sessions")
    assert (status, errors.count("\n")) == (1, 1)
    assert rig.lab.host.run(["ls", "/run/envelope"]).returncode != 0


def refused(folder: Path, *options: str) -> str:
    """What a service says that does not start."""
    done = subprocess.run(
        [sys.executable, Path(sys.executable).with_name("twistd"), "-n", "--pidfile=",
         "--logfile=/dev/null", "envelope", "--token-required=false", "--listen=127.0.0.1:0",
         "--admin=none", *options],
        cwd=folder, capture_output=True, text=True, timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_the_socket_of_a_killed_service_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control"
    env = {"RUNTIME_DIRECTORY": f"{path.parent}:/nowhere"}
    with twistd(tmp_path, "--token-required=false", env=env) as service:
        service.until(f"control socket at {path}")
        service.until(r"\bready$")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "another running service listens there" in refused(tmp_path, f"--control={path}")
        with twistd(tmp_path, "--token-required=false", env=env) as other:
            other.until(r"cannot open the control socket .*: another running service")
            other.until(r"\bready$")
            assert other.stop() == 0
        assert path.exists()
        service.process.send_signal(signal.SIGKILL)
        service.process.wait(PATIENCE)
    assert path.exists()
    with twistd(tmp_path, "--token-required=false", f"--control={path}") as service:
        service.until(r"\bready$")
        state = subprocess.run(
            [*ENVELOPE, "status"], capture_output=True, text=True, timeout=PATIENCE,
            env={**os.environ, "ENVELOPE_CONTROL": str(path)},
        )
        assert state.returncode == 0, state.stderr
        assert "slots: 0 of 1 used" in state.stdout
        assert service.stop() == 0
    assert not path.exists()
    assert "not a directory" in refused(tmp_path, "--control=/dev/null/control")
    with twistd(tmp_path, "--token-required=false", "--control=none", env=env) as service:
        assert not any("control socket" in line for line in service.seen)
        service.until(r"\bready$")


def test_only_the_services_user_may_ask(tmp_path: Path) -> None:
    with public_folder() as folder:
        path = folder / "control"
        nobody = as_nobody()
        with twistd(tmp_path, "--token-required=false", f"--control={path}") as service:
            service.until(r"\bready$")
            done = subprocess.run(
                [*nobody, *ENVELOPE, "sessions", f"--control={path}"],
                capture_output=True, text=True, timeout=PATIENCE,
            )
    assert done.returncode == 1
    assert done.stderr.startswith("envelope sessions: no permission to use")
    assert done.stderr.count("\n") == 1
