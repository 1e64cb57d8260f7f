"""The `envelope` command on its command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envelope.commands import main
from envelope.credentials.tokens import Claims, TokenExpectations, verify
from tests.support.keyrings import load_key_ring


@pytest.mark.parametrize("alg", ["EdDSA", "ES256", "RS256"])
def test_a_token_signed_with_a_new_key_is_accepted(tmp_path, capsys, alg) -> None:
    """keygen, sign, and the service's verification."""
    assert main(["keygen", "--alg", alg, "--kid", "k1", "--out", str(tmp_path)]) == 0
    private = tmp_path / f"jwk_sig_{alg}_k1"
    public = tmp_path / f"jwk_sig_{alg}_k1.pub"
    assert capsys.readouterr().out.split() == [str(private), str(public)]
    assert private.stat().st_mode & 0o777 == 0o600
    common = ["sign", "--private", str(private), "--machine", "m", "--subject", "s"]
    assert main([*common, "--expires=1m", "--claim", "sub=other", "--claim", "n=[1]"]) == 0
    token = capsys.readouterr().out.strip()
    now = time.time()
    claims = verify(token, load_key_ring([public]), TokenExpectations("locate", "m"), now)
    assert isinstance(claims, Claims)
    assert claims.subject == "other"
    assert 50 < claims.expires - now <= 60
    assert main([*common, "--url", "host:8880"]) == 0
    assert capsys.readouterr().out.startswith("wss://host:8880/v0/envelope/access?access_token=ey")
    assert main(["jwks", str(private), str(public)]) == 0
    printed = capsys.readouterr().out
    (key,) = json.loads(printed)["keys"]
    assert "d" not in key
    assert main(["keygen", "--alg", alg, "--kid", "k1", "--out", str(tmp_path)]) == 2


@pytest.mark.parametrize(("argv", "status"), [
    ([], 2), (["nonsense"], 2), (["keygen", "--alg=HS256"], 2), (["keygen", "--kid=../x"], 2),
    (["keygen", "--nope"], 2), (["sign"], 2), (["sign", "--claim=x"], 2), (["jwks"], 2),
    (["sign", "--private=/none", "--machine=m", "--subject=s"], 1),
    (["sign", "--private=/none", "--machine=m", "--subject=s", "--expires=soon"], 2),
    (["sign", "--private=/dev/null", "--machine=m", "--subject=s"], 2),
    (["jwks", "/dev/null"], 2), (["jwks", "/none"], 1), (["keygen", "--out=/none"], 1),
    (["rules", "--device=nope0"], 2),
])
def test_wrong_usage_is_one_line(capsys, argv, status) -> None:
    """On standard error; standard output is empty."""
    assert main(argv) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("envelope")


@pytest.mark.parametrize("command", [
    "keygen", "sign", "jwks", "exec", "rules", "check", "sessions", "revoke", "status",
    "completion", "man",
])
def test_each_command_has_a_help(capsys, command) -> None:
    """Its exit status is 0."""
    try:
        assert main([command, "--help"]) == 0
    except SystemExit as end:
        assert not end.code
    assert f"envelope {command}" in capsys.readouterr().out


def test_help_and_version(capsys) -> None:
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0
    assert "keygen" in capsys.readouterr().out


def test_rules_prints_what_a_start_would_install(capsys, tmp_path) -> None:
    """With iptables, for both address families."""
    main(["keygen", "--kid=k", f"--out={tmp_path}"])
    capsys.readouterr()
    options = [f"--verify-key={tmp_path}/jwk_sig_EdDSA_k.pub", "--machine=m", "--subject=s"]
    assert main(["rules", "--device=lo", "--grant-port=tcp/5000", *options]) == 0
    printed = capsys.readouterr().out
    assert "-A ENVELOPE ! -i lo -j ACCEPT" in printed
    assert "-A ENVELOPE -p tcp -m tcp --dport 8880 -j ACCEPT" in printed
    assert "-A ENVELOPE -p ipv6-icmp -j ACCEPT" in printed
    assert "-P INPUT DROP" in printed
    assert "-s NETWORK -p tcp -m tcp --dport 5000 -j ENVELOPE-END-TIME" in printed
    assert "-A ENVELOPE-END-TIME -m time --datestop TIME -j ACCEPT" in printed
    options += ["--device=lo", "--firewall=nftables", "--grant-prefix4=24"]
    assert main(["rules", *options]) == 0
    printed = capsys.readouterr().out
    assert "\t\tip saddr & 255.255.255.0 @grants4 accept\n" in printed
    assert "policy drop;\n\t\tjump baseline\n" in printed
    assert "add element inet envelope grants6 { ADDRESS timeout TIME }" in printed
    assert main(["rules", "--token-required=false"]) == 0
    assert "not managed" in capsys.readouterr().out


INTERRUPT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.process
@pytest.mark.parametrize("name", [
    "twisted.python.usage", "twisted.python.reflect", "envelope.runtime.stdout",
    "envelope.commands.demo", "envelope.lab.fixtures", "cryptography.x509",
])
def test_ctrl_c_during_imports_is_no_traceback(tmp_path, name) -> None:
    """A person who mistyped a command presses it at once."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT.format(name=name))
    done = subprocess.run(
        [sys.executable, Path(sys.executable).with_name("envelope"), "demo", "--nonsense"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.process
@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_a_message_that_cannot_be_written_changes_nothing_else(stderr) -> None:
    """Nor does it go to standard output."""
    command = f"{sys.executable} -c 'from envelope.commands import main; exit(main())' nonsense"
    done = subprocess.run(["sh", "-c", f"{command} {stderr}"], capture_output=True, timeout=60,
                          cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout) == (2, b"")
