"""The command line of `envelope exec`."""

from __future__ import annotations

import pytest
from twisted.python import usage

from envelope.commands import main
from envelope.commands.exec import Options, duration


def parsed(*argv: str) -> Options:
    options = Options()
    options.parseOptions(argv)
    return options


@pytest.mark.parametrize(("argv", "command"), [
    ([], []), (["--", "a", "-b", "--"], ["a", "-b", "--"]),
    (["a", "--timeout=x"], ["a", "--timeout=x"]),
    (["--timeout", "5s", "a"], ["a"]), (["--insecure", "-"], ["-"]),
    (["-service", "a/b", "-timeout", "1m0s", "-envelope-key", "k", "-locate-url=http://x/", "a"],
     ["a"]),
    (["-env-key=wss:///v0/envelope/access", "-timeout=1h2m3.5s", "a", "-c"], ["a", "-c"]),
    (["-family=both", "-partial", "a"], ["a"]),
])
def test_the_command_begins_after_the_options(argv: list[str], command: list[str]) -> None:
    assert parsed(*argv).command == command


def test_the_reference_s_spelling() -> None:
    options = parsed("-service", "a/b", "-timeout", "1m0s", "-env-key", "k", "-locate-url", "u")
    names = ("service", "envelope-key", "locate-url")
    assert [options[name] for name in names] == ["a/b", "k", "u"]
    assert options.seconds == 60
    assert (parsed()["service"], parsed().seconds) == ("wehe/replay", 60)


@pytest.mark.parametrize(("text", "seconds"), [
    ("90", 90), ("1m30s", 90), ("1m0s", 60), ("1.5h", 5400), ("1h0m0.5s", 3600.5), ("500ms", 0.5),
    ("1500us", 0.0015), ("2s500ms", 2.5), (".5m", 30), ("1d", 86_400),
])
def test_durations_in_both_notations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0", "0s", "-1s", "1x", "9999h9999h", "s", "1e3", "nan"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        duration(text)


@pytest.mark.parametrize("argv", [
    ["--nope"], ["--time=5"], ["--url"], ["--timeout=soon"], ["--family=5"], ["--partial"],
    ["--url=ws://a/", "--locate-url=http://b/"], ["--service=a"], ["--service=../a"],
    ["--insecure=true"], [""],
])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(usage.UsageError):
        parsed(*argv)
    assert main(["exec", *argv]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("envelope exec: ")
    assert said.err.count("\n") == 1


def test_a_command_that_cannot_be_run_opens_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    assert main(["exec", "--url=ws://192.0.2.1/", "no-such-command"]) == 127
    plain = tmp_path / "plain"
    plain.touch()
    assert main(["exec", "--url=ws://192.0.2.1/", str(plain)]) == 126
    assert capsys.readouterr().err == (
        "envelope exec: no-such-command: command not found\n"
        f"envelope exec: {plain}: cannot be executed\n"
    )
