"""Completions in real shells, and the manual page through real formatters."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envelope.commands import COMMANDS, main
from envelope.commands.interface import commands, service_options
from envelope.commands.manpage import manual_page
from envelope.commands.shells import SHELLS
from envelope.commands.values import FILE, TEXT, words
from envelope.config import OPTIONS
from tests.support.environment import need

ALL = list(commands())
PATIENCE = 60.0


def path_of(program: str) -> str:
    """The path of a program that the test needs."""
    found = shutil.which(program)
    if found is None:
        need(f"{program} is not installed")
    return found


def test_what_is_known_of_the_commands() -> None:
    known = {command.name: command for command in ALL}
    assert list(known) == list(COMMANDS)
    keygen = {option.name: option.value for option in known["keygen"].options}
    assert keygen == {
        "alg": words("EdDSA", "ES256", "RS256"), "kid": TEXT, "out": FILE, "help": None}
    assert {option.name for option in known["sign"].options} >= {"private", "claim", "url"}
    assert {option.name for option in known["revoke"].options} == {
        "network", "control", "all", "help"}
    assert [option.name for option in service_options()] == [each.name for each in OPTIONS]
    service = {option.name: option for option in service_options()}
    assert service["firewall"].value == words("iptables", "nftables", "none")
    assert service["cert"].value == service["verify-key"].value == service["control"].value == FILE
    assert service["token-required"].value == words("true", "false")
    assert service["listen"].many
    assert known["check"].takes_service_options
    assert all(len(option.short) <= 72 for option in service_options())


@pytest.mark.parametrize("shell", SHELLS)
def test_it_is_printed(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    """Each command and each option is in it."""
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert printed == SHELLS[shell](ALL)
    for name in (*COMMANDS, *(option.name for option in OPTIONS)):
        assert name in printed


@pytest.mark.parametrize("argv", [
    ["completion"], ["completion", "tcsh"], ["completion", "bash", "zsh"], ["man", "x"]])
def test_wrong_usage(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1


BASH = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_envelope
printf '%s\\n' "${COMPREPLY[@]}"
"""
CASES = [
    ([""], set(COMMANDS)),
    (["ke"], {"keygen"}),
    (["keygen", "--"], {"--alg", "--kid", "--out", "--help"}),
    (["keygen", "--alg", "E"], {"EdDSA", "ES256"}),
    (["keygen", "--out", "a "], {"a file"}),
    (["jwks", "a"], {"a file"}),
    (["rules", "--fire"], {"--firewall"}),
    (["check", "--on-stop", ""], {"restore", "keep"}),
    (["check", "--js"], {"--json"}),
    (["completion", ""], {"bash", "zsh", "fish"}),
    (["exec", "--family", "b"], {"both"}),
    (["exec", "mkf"], {"mkfifo"}),
    (["exec", "--family", "4", "--", "mkf"], {"mkfifo"}),
    (["exec", "--", "cat", "a "], {"a file"}),
    (["exec", "--", "cat", "--family", ""], {"a file"}),
    (["exec", "--", "--fam"], set()),
    (["jwks", "--", "a "], {"a file"}),
    (["sign", "--machine", ""], set()),
    (["man", ""], set()),
]


def options_after_the_end(typed: list[str], found: set[str]) -> set[str]:
    """Those of `envelope exec` that are offered after a word `--`."""
    return found & {"--family", "--url", "4", "both"} if "--" in typed[:-1] else set()


@pytest.mark.process
def test_bash(tmp_path: Path) -> None:
    """Other words than these may be offered for commands without arguments, and programs."""
    shell = path_of("bash")
    (tmp_path / "completion").write_text(SHELLS["bash"](ALL))
    (tmp_path / "a file").touch()
    more = [(["keygen", "--alg", "=", "E"], {"EdDSA", "ES256"}), (["keygen", "--alg", "="],
             {"EdDSA", "ES256", "RS256"}), (["keygen", "--alg=E"], {"--alg=EdDSA", "--alg=ES256"}),
            (["check", "--cert=a"], {"--cert=a file"})]
    for typed, offered in [*CASES, *more]:
        # Without a command line that is edited, bash warns of `compopt`.
        done = subprocess.run(
            [shell, "-c", BASH, "bash", "completion", "envelope", *typed], cwd=tmp_path,
            capture_output=True, text=True, timeout=PATIENCE,
        )
        found = set(done.stdout.splitlines()) - {""} - ({"--help", "--version"} - offered)
        assert found >= offered, (typed, done)
        assert not options_after_the_end(typed, found), typed
        assert found == offered or typed[0] == "exec", typed


@pytest.mark.process
def test_fish(tmp_path: Path) -> None:
    shell = path_of("fish")
    (tmp_path / "completion").write_text(SHELLS["fish"](ALL))
    (tmp_path / "a file").touch()
    for typed, offered in CASES:
        line = " ".join(["envelope", *typed]).replace("a ", "a\\ ")
        done = subprocess.run(
            [shell, "--no-config", "-c", 'source completion; complete -C "$argv"', line],
            cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE,
            env={**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
        )
        assert done.stderr == ""
        found = {each.partition("\t")[0].replace("\\ ", " ") for each in done.stdout.splitlines()}
        assert found >= offered, (typed, found)
        assert not options_after_the_end(typed, found), typed


@pytest.mark.process
def test_zsh(tmp_path: Path) -> None:
    """On a terminal, since it completes nowhere else."""
    shell = path_of("zsh")
    (tmp_path / "_envelope").write_text(SHELLS["zsh"](ALL))
    (tmp_path / "a file").touch()
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execve(shell, ["zsh", "-f", "-i"], {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "dumb", "COLUMNS": "200"})
    try:
        os.write(terminal, b"unsetopt zle_bracketed_paste; PS1='>'; fpath=($PWD $fpath)\n"
                           b"autoload -Uz compinit; compinit -u -D; unsetopt beep\n")
        for typed, completed in (
            ("envelope keyg", "keygen "), ("envelope keygen --al", "--alg="),
            ("envelope keygen --alg=Ed", "--alg=EdDSA"), ("envelope rules --firew", "--firewall="),
            ("envelope check --on-stop=re", "=restore"), ("envelope jwks a", "a\\ file"),
            ("envelope completion fi", "fish"), ("envelope exec --family=b", "=both"),
            ("envelope exec mkfif", "mkfifo "), ("envelope exec --family=4 -- mkfif", "mkfifo "),
            ("envelope exec -- mkfif", "mkfifo "), ("envelope exec -- cat a", "a\\ file"),
            ("envelope exec -- --fam\t, no option", "--fam, no option"),
        ):
            os.write(terminal, f"{typed}\t".encode())
            wait_for(terminal, completed)
            os.write(terminal, b"\x15")  # Ctrl-U
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def wait_for(terminal: int, text: str) -> None:
    """Read what the terminal shows until `text` is in it."""
    seen, until = "", time.monotonic() + PATIENCE
    while text not in re.sub("[\x07\x08]|\x1b\\[[0-9;?]*[a-zA-Z]", "", seen):
        ready, _, _ = select.select([terminal], [], [], max(0.0, until - time.monotonic()))
        assert ready, (text, seen)
        seen += os.read(terminal, 65536).decode(errors="replace")


def test_the_manual_page_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["man"]) == 0
    page = capsys.readouterr().out
    assert page == manual_page(ALL, service_options())
    plain = " ".join(page.replace("\\-", "-").replace("\\&", "").split())
    for option in OPTIONS:
        assert f"\\fB--{option.name}\\fR" in plain
        assert option.help.replace("\\", "\\e") in plain
    for command in ALL:
        assert f".SS envelope {command.name}" in plain


@pytest.mark.process
@pytest.mark.parametrize("command", [
    ("mandoc", "-Tlint"), ("groff", "-man", "-Tutf8", "-ww", "-z"),
    ("man", "--warnings", "--encoding=UTF-8", "-l"),
])
def test_formatters_have_nothing_to_say(tmp_path: Path, command: tuple[str, ...]) -> None:
    path_of(command[0])
    page = tmp_path / "envelope.1"
    page.write_text(manual_page(ALL, service_options()))
    done = subprocess.run(
        [*command, page], capture_output=True, text=True, timeout=PATIENCE,
        env={"PATH": os.environ["PATH"], "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    if command[0] == "mandoc":
        assert done.stdout == ""
    if command[0] == "man":
        assert "--max-clients" in done.stdout


@pytest.mark.process
def test_it_can_be_piped_to_man(tmp_path: Path) -> None:
    envelope = Path(sys.executable).with_name("envelope")
    done = subprocess.run([envelope, "man"], cwd=tmp_path, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0
    assert done.stdout.startswith(b".TH ENVELOPE 1 ")
