"""`envelope keygen`, `sign` and `jwks`, and what `envelope` does when something goes wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from jwcrypto import jwk
from twisted.python import usage

from envelope import __version__, commands
from envelope.commands import keygen, main
from envelope.credentials.tokens import Claims, TokenExpectations, TokenReason, TokenRefusal, verify
from tests.support.keyrings import load_key_ring

ED = {"kty": "OKP", "crv": "Ed25519"}


@pytest.fixture
def pair(tmp_path, capsys) -> tuple[Path, Path]:
    """The private and the public file of a key called k."""
    assert main(["keygen", "--kid=k", f"--out={tmp_path}"]) == 0
    private, public = capsys.readouterr().out.split()
    return Path(private), Path(public)


def sign(private: Path, *more: str) -> int:
    return main(["sign", f"--private={private}", "--machine=m", "--subject=s", *more])


def signed(capsys, pair, *more: str) -> Claims | TokenRefusal:
    """The service's verdict on a token that is signed here."""
    assert sign(pair[0], *more) == 0
    token = capsys.readouterr().out.strip()
    return verify(token, load_key_ring([pair[1]]), TokenExpectations("locate", "m"), time.time())


def one_line(capsys, *fragments: str) -> None:
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    for fragment in fragments:
        assert fragment in said.err


# -- keygen ----------------------------------------------------------------------------------

@pytest.mark.parametrize("umask", [0, 0o777])
def test_only_the_owner_can_read_a_private_key_whatever_the_umask(tmp_path, capsys, umask) -> None:
    """The umask applies to the public key only."""
    before = os.umask(umask)
    try:
        assert main(["keygen", "--kid=k", f"--out={tmp_path}"]) == 0
    finally:
        os.umask(before)
    private, public = map(Path, capsys.readouterr().out.split())
    assert private.stat().st_mode & 0o777 == 0o600
    assert public.stat().st_mode & 0o777 == 0o644 & ~umask
    assert "d" in json.loads(private.read_text())
    assert "d" not in json.loads(public.read_text())


def test_two_keys_made_without_a_kid_differ_in_it(tmp_path, capsys) -> None:
    """One key ring can hold both."""
    for _ in range(2):
        assert main(["keygen", f"--out={tmp_path}"]) == 0
    public = [Path(line) for line in capsys.readouterr().out.split() if line.endswith(".pub")]
    assert len(load_key_ring(public)) == 2


@pytest.mark.parametrize("kid", [
    "", ".", "..", "../x", "a/b", "/etc/x", "-x", ".hidden", "a b", "a\nb", "a\x00b", "é", "a" * 65,
    "k.pub",
])
def test_a_kid_is_a_safe_file_name(tmp_path, capsys, kid) -> None:
    """A private key's file cannot be mistaken for a public one."""
    assert main(["keygen", f"--kid={kid}", f"--out={tmp_path}"]) == 2
    one_line(capsys, "envelope keygen: --kid")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", ["jwk_sig_EdDSA_k", "jwk_sig_EdDSA_k.pub"])
def test_nothing_is_overwritten_and_nothing_left_behind(tmp_path, capsys, taken) -> None:
    """Whichever of the two names is taken, by a file or by a link to nowhere."""
    (tmp_path / taken).write_text("mine")
    assert main(["keygen", "--kid=k", f"--out={tmp_path}"]) == 2
    one_line(capsys, taken, "exists already")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(taken, "mine")]
    (tmp_path / taken).unlink()
    (tmp_path / taken).symlink_to(tmp_path / "nowhere")
    assert main(["keygen", "--kid=k", f"--out={tmp_path}"]) == 2
    one_line(capsys, taken, "exists already")
    assert os.listdir(tmp_path) == [taken]


def test_a_file_that_cannot_be_written_whole_is_removed(tmp_path) -> None:
    """As on a full disk; here, writing fails because None is not text."""
    with pytest.raises(TypeError):
        keygen._write(tmp_path / "half", None, 0o600)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# -- sign ------------------------------------------------------------------------------------

def test_claims_are_added_as_json_or_as_text(capsys, pair) -> None:
    """A value that only Python reads as JSON is taken as text."""
    deep = "[" * 5000
    claims = ["a=[1]", "b=x y", "c=NaN", "d=1e999", f"e={deep}", "f=", "g=1=2", 'h="1"']
    assert sign(pair[0], *(f"--claim={claim}" for claim in claims)) == 0
    payload = capsys.readouterr().out.split(".")[1]
    said = json.loads(jwk.base64url_decode(payload))
    assert {name: said[name] for name in "abcdefgh"} == {
        "a": [1], "b": "x y", "c": "NaN", "d": "1e999", "e": deep, "f": "", "g": "1=2", "h": "1"}
    assert said["exp"] - said["iat"] in (120, 121)


def test_a_claim_can_be_overridden_on_purpose(capsys, pair) -> None:
    """Tests make tokens that must be refused in this way."""
    assert isinstance(signed(capsys, pair), Claims)
    assert signed(capsys, pair, "--claim=exp=1") == TokenRefusal(TokenReason.EXPIRED)
    assert signed(capsys, pair, "--claim=aud=x") == TokenRefusal(TokenReason.AUDIENCE)
    assert signed(capsys, pair, "--issuer=x") == TokenRefusal(TokenReason.ISSUER)
    early = signed(capsys, pair, "--claim=nbf=99999999999")
    assert early == TokenRefusal(TokenReason.NOT_YET_VALID)
    assert signed(capsys, pair, "--claim=pad=" + "x" * 9000) == TokenRefusal(TokenReason.MALFORMED)


def test_each_token_has_its_own_jti(capsys, pair) -> None:
    identifiers = set()
    for _ in range(2):
        assert sign(pair[0]) == 0
        payload = capsys.readouterr().out.split(".")[1]
        identifiers.add(json.loads(jwk.base64url_decode(payload))["jti"])
    assert len(identifiers) == 2


@pytest.mark.parametrize("place", ["host:8880", "203.0.113.7:1", "[2001:db8::1]:65535"])
def test_with_url_the_whole_url_is_printed(capsys, pair, place) -> None:
    assert sign(pair[0], f"--url={place}") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"wss://{place}/v0/envelope/access?access_token=ey")
    assert printed.count("\n") == 1


@pytest.mark.parametrize(("more", "said"), [
    ("--url=", "--url"), ("--url=host", "--url"), ("--url=host:0", "--url"),
    ("--url=host:65536", "--url"), ("--url=https://host:1", "--url"),
    ("--url=2001:db8::1:1", "--url"),
    ("--url=a b:1", "--url"), ("--url=host:1/x?", "--url"), ("--expires=-1", "--expires"),
    ("--expires=", "--expires"), ("--claim==x", "K=V"), ("--claim=x", "K=V"),
    ("--machine=", "--machine"), ("--subject=", "--subject"), ("--private=", "--private"),
    ("stray", "arguments"), ("--claims=x=y", "recognized"),
])
def test_wrong_usage_of_sign(capsys, pair, more, said) -> None:
    """One line, and status 2."""
    assert sign(pair[0], more) == 2
    one_line(capsys, "envelope sign: ", said)


def test_a_claim_given_twice_is_refused(capsys, pair) -> None:
    assert sign(pair[0], "--claim=a=1", "--claim=a=2") == 2
    one_line(capsys, "'a' is given twice")


def changed(**changes: object) -> str:
    key = {**jwk.JWK.generate(**ED, kid="k", alg="EdDSA").export(as_dict=True), **changes}
    return json.dumps({name: value for name, value in key.items() if value is not None})


@pytest.mark.parametrize(("text", "said"), [
    (b"\xd0\x00\xff", "not a JWK"), (b"", "not a JWK"), (b"[]", "not a JWK"),
    (b"[" * 5000, "nested"), (changed(kid=None), "kid"), (changed(alg="RS256"), "alg is not EdDSA"),
    (changed(d=None), "no private key"), (changed(d=5), "cannot be used"),
    (changed(d="AAAA"), "cannot be used"), (changed(x="A" * 43), "small order"),
    (changed(x=jwk.JWK.generate(**ED).export(as_dict=True)["x"]), "not a pair"),
    ('{"kty":"oct","k":"c2VjcmV0","kid":"k","alg":"HS256"}', "symmetric"),
    (json.dumps({"keys": [json.loads(changed()), json.loads(changed())]}), "more than one"),
])
def test_a_key_that_cannot_sign_is_refused_in_one_line(tmp_path, capsys, text, said) -> None:
    """No traceback, and no part of the key."""
    path = tmp_path / "the.key"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert sign(path) == 2
    one_line(capsys, "envelope sign: ", "the.key", said)


def test_the_alg_of_a_private_key_without_one_follows_from_its_kind(tmp_path, capsys) -> None:
    """As for public keys in the service. A set with one key can be used too."""
    path = tmp_path / "key"
    path.write_text(json.dumps({"keys": [json.loads(changed(alg=None))]}))
    assert sign(path) == 0
    token = capsys.readouterr().out
    assert json.loads(jwk.base64url_decode(token.split(".")[0]))["alg"] == "EdDSA"


# -- jwks ------------------------------------------------------------------------------------

@pytest.mark.parametrize("extra", [{}, {"key_ops": ["sign"]}, {"oth": [1], "note": "secret"}])
def test_only_public_members_are_printed(tmp_path, capsys, extra) -> None:
    """The service reads the printed set, also when it was made from other sets."""
    private, other = changed(**extra), changed(kid="other")
    (tmp_path / "a").write_text(private)
    (tmp_path / "b").write_text(json.dumps({"keys": [json.loads(other), json.loads(private)]}))
    assert main(["jwks", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out
    assert {name for key in json.loads(printed)["keys"] for name in key} == {
        "kty", "crv", "x", "kid", "alg"}
    (tmp_path / "set").write_text(printed)
    assert load_key_ring([tmp_path / "set"]).keys() == {"k", "other"}
    assert main(["jwks", str(tmp_path / "set")]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(("text", "said"), [
    ("\x00", "not a JWK"), ('{"kty":"oct","k":"AAAA"}', "symmetric"), (changed(kid=None), "kid"),
    ("{}", "kid"), (changed(use="enc"), "use"), (changed(), "same kid"),
])
def test_keys_the_service_would_refuse_are_refused(tmp_path, capsys, pair, text, said) -> None:
    """The line names the file."""
    (tmp_path / "the.key").write_text(text)
    assert main(["jwks", str(pair[0]), str(tmp_path / "the.key")]) == 2
    one_line(capsys, "envelope jwks: ", "the.key", said)


# -- errors ----------------------------------------------------------------------------------

@pytest.mark.parametrize("command", [[], ["keygen"], ["sign"], ["jwks"]])
def test_help_and_version_of_each(capsys, command) -> None:
    """Neither says anything about Twisted."""
    for option in ("--help", "--version"):
        try:
            assert main([*command, option]) == 0
        except SystemExit as end:
            assert end.code == 0
        said = capsys.readouterr()
        assert said.err == ""
        assert "Twisted" not in said.out
        usage_line = " ".join(["Usage: envelope", *command])
        assert said.out.startswith(usage_line if option == "--help" else f"{__version__}\n")


@pytest.mark.parametrize(("argv", "said"), [
    ([], "envelope: a command is needed"), (["x\ny"], "envelope: there is no command 'x\\ny'"),
    (["jwks"], "envelope jwks: at least one"),
    (["keygen", "--alg=HS256"], "envelope keygen: --alg"),
    (["keygen", "stray"], "envelope keygen: "), (["keygen", "--kid"], "envelope keygen: "),
    (["--nope"], "envelope: there is no command '--nope'"),
])
def test_wrong_usage_is_one_line_and_status_2(capsys, argv, said) -> None:
    """The line names the command."""
    assert main(argv) == 2
    one_line(capsys, said)


def raising(error: BaseException):
    def run(options: object) -> int:
        raise error
    return run


@pytest.mark.parametrize(("error", "status", "said"), [
    (KeyboardInterrupt(), 130, ""), (BrokenPipeError(), 1, ""),
    (usage.UsageError("no\nway\x1b[0m"), 2, "envelope jwks: no?way?[0m\n"),
    (OSError(errno.EACCES, "denied", "the\nfile"), 1, "envelope jwks: the?file: denied\n"),
    (OSError("odd"), 1, "envelope jwks: input or output failed\n"),
    (RuntimeError("the key's d is 5"), 1, "internal error (RuntimeError in test_keys"),
])
def test_an_exception_is_one_line(monkeypatch, capsys, error, status, said) -> None:
    """The text of an unexpected exception is left out, because it may contain a secret."""
    module = SimpleNamespace(Options=usage.Options, run=raising(error))
    monkeypatch.setattr(usage.Options, "synopsis", "", raising=False)
    monkeypatch.setitem(sys.modules, "envelope.commands.jwks", module)
    assert main(["jwks"]) == status
    written = capsys.readouterr().err
    assert said in written
    assert written.count("\n") == bool(said)
    assert "d is 5" not in written


def test_every_listed_command_has_a_module() -> None:
    for name in commands.COMMANDS:
        module = commands.import_module(f"envelope.commands.{name}")
        assert hasattr(module, "main") or (hasattr(module, "Options") and hasattr(module, "run"))


def envelope(*argv: str, **how: object) -> subprocess.CompletedProcess[bytes]:
    """Run it as a shell does, with buffered output."""
    environ = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    program = "import sys; from envelope.commands import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", program, *argv], env=environ, timeout=60,
                          stderr=subprocess.PIPE, check=False, **how)  # type: ignore[call-overload]


@pytest.mark.process
@pytest.mark.parametrize("argv", [["--help"], ["sign", "--help"], ["jwks"]])
def test_a_reader_that_closes_the_pipe_causes_no_message(pair, argv) -> None:
    """Nor when the interpreter flushes its output at its end."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        done = envelope(*argv, *([str(pair[1])] if argv == ["jwks"] else []), stdout=stdout)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.process
def test_a_full_disk_is_one_line_and_status_1(pair) -> None:
    with open("/dev/full", "w") as stdout:
        done = envelope("jwks", str(pair[1]), stdout=stdout)
    assert done.returncode == 1
    assert done.stderr == b"envelope jwks: No space left on device\n"


@pytest.mark.process
def test_a_closed_standard_output_causes_no_message(pair) -> None:
    """Some supervisors start programs without one."""
    done = envelope("jwks", str(pair[1]), preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, b"")
