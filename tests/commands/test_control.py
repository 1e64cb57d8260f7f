"""`envelope sessions`, `revoke` and `status`: tables, errors, and a service that misbehaves."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.commands import main
from envelope.commands.controlclient import ask
from envelope.commands.failing import Failed
from envelope.commands.sessions import sessions_table
from envelope.commands.status import status_lines
from envelope.commands.tables import amount, cut, lasting, table, width_of

SESSION = {
    "id": "0123456789ab", "address": "2001:db8::7", "network": "2001:db8::7/128", "subject": "ndt",
    "since": 1000.0, "until": 1065.0, "packets": 12, "bytes": 34_567,
    "claims": {"site": "\x1b[2Jlga\n03", "wide": "漢字"},
}
STATUS: dict[str, Any] = {
    "version": "1", "now": 1005.0, "uptime": 4000.0, "ready": False, "reasons": ["starting", "x"],
    "warnings": ["look"], "slots": {"used": 1, "total": 2}, "sessions": [SESSION],
    "refusals": {"expired": 2, "empty": 0}, "rules": {"wanted": ["a", "b"], "held": ["b", "c"]},
    "keys": [{"kid": "k", "alg": "EdDSA", "source": "verify-key", "since": 5.0}],
    "certificate": {"names": ["a.example"], "not_before": 0.0, "not_after": 905.0, "since": 0.0},
    "tx_bits_per_second": 1_250_000, "options": {"tx-device": "eth0", "tx-max-rate": 800e6},
}


@contextmanager
def answering(path: Path, answer: bytes | None) -> Iterator[list[bytes]]:
    """A service that gives this answer to one request, or none; yields the requests."""
    asked: list[bytes] = []
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            with listening.accept()[0] as peer:
                asked.append(peer.recv(65536))
                if answer is None:
                    done.wait(60)
                else:
                    peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            done.set()
            thread.join(60)


def line(**members: object) -> bytes:
    return json.dumps({"version": 1, **members}).encode() + b"\n"


def test_sessions(capsys, tmp_path, monkeypatch) -> None:
    """As a table with nothing that a terminal obeys, and as JSON."""
    path = tmp_path / "control"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("COLUMNS", raising=False)
    with answering(path, line(sessions=[SESSION])) as asked:
        assert main(["sessions"]) == 0
    assert json.loads(asked[0]) == {"version": 1, "command": "sessions"}
    printed = capsys.readouterr().out
    assert printed.isascii() is False
    assert "site=?[2Jlga?03 wide=漢字" in printed
    assert "34.6 kB" in printed
    path.unlink()
    with answering(path, line(sessions=[SESSION])):
        assert main(["sessions", "--json", f"--control={path}"]) == 0
    assert json.loads(capsys.readouterr().out) == [SESSION]
    path.unlink()
    with answering(path, line(sessions=[])):
        monkeypatch.setenv("ENVELOPE_CONTROL", str(path))
        assert main(["sessions"]) == 0
    assert capsys.readouterr().out == "no session is open\n"


def test_a_terminal_without_unicode(tmp_path, monkeypatch) -> None:
    path, output = tmp_path / "control", BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(output, "ascii"))
    with answering(path, line(sessions=[SESSION])):
        assert main(["sessions", f"--control={path}"]) == 0
    assert b"wide=??" in output.getvalue()


@pytest.mark.parametrize(("argv", "members", "answer", "status", "said"), [
    (["a", "b"], {"ids": ["a", "b"]}, {"revoked": 2, "unknown": []}, 0, "2 sessions ended"),
    (["a", "b"], {"ids": ["a", "b"]}, {"revoked": 1, "unknown": ["b"]}, 1,
     "there is no session b (1 ended)"),
    (["x"], {"ids": ["x"]}, {"revoked": 0, "unknown": ["x"]}, 1, "there is no session x"),
    (["--network", "192.0.2.0/24"], {"network": "192.0.2.0/24"}, {"revoked": 1, "unknown": []}, 0,
     "1 session ended"),
    (["--network=192.0.2.1"], {"network": "192.0.2.1"}, {"revoked": 0, "unknown": []}, 1,
     "there is no session in 192.0.2.1"),
    (["--all"], {"all": True}, {"revoked": 0, "unknown": []}, 0, "0 sessions ended"),
    (["--all"], {"all": True}, {"error": "something"}, 1, "something"),
])
def test_revoke(capsys, tmp_path, argv, members, answer, status, said) -> None:
    path = tmp_path / "control"
    with answering(path, line(**answer)) as asked:
        assert main(["revoke", *argv, "--control", str(path)]) == status
    assert json.loads(asked[0]) == {"version": 1, "command": "revoke", **members}
    printed = capsys.readouterr()
    assert (printed.err if status else printed.out).removeprefix("envelope revoke: ") == f"{said}\n"


@pytest.mark.parametrize("argv", [
    ["revoke"], ["revoke", "a", "--all"], ["revoke", "--all", "--network=192.0.2.0/24"],
    ["revoke", "--network=nowhere"], ["revoke", "--network"], ["revoke", "--force"],
    ["sessions", "a"], ["status", "--all"], ["sessions", "--control=none"],
    ["revoke", "--control=", "a"],
    ["sessions", "--control=a\nb"], ["status", "--control="],
])
def test_wrong_usage(capsys, argv) -> None:
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1


def test_status(capsys, tmp_path) -> None:
    path = tmp_path / "control"
    for argv in (["status"], ["status", "--json"]):
        path.unlink(missing_ok=True)
        with answering(path, line(status=STATUS)):
            assert main([*argv, f"--control={path}"]) == 0
    text, _, last = capsys.readouterr().out.rstrip("\n").rpartition("\n")
    assert json.loads(last) == STATUS
    assert "\x1b" not in text
    assert "0123456789ab" in text
    assert list(status_lines(STATUS)) == [
        "envelope 1, up 1h06m", "not ready: starting; x", "slots: 1 of 2 used",
        "eth0 sends 1.2 of at most 800.0 Mbit/s",
        "refused: expired: 2", "rules: 1 of 2 in force", "  missing: a", "  stray: c",
        "key k: EdDSA, from --verify-key, in use for 16m40s",
        "certificate for a.example: expired 1m40s ago", "warning: look",
    ]


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 400 Bad Request\r\n", b"{}\n", b"[1]\n",
    b'{"version": 2, "sessions": []}\n', b"[" * 100_000 + b"\n",
])
def test_something_else_answers(capsys, tmp_path, answer) -> None:
    path = tmp_path / "control"
    with answering(path, answer):
        assert main(["sessions", f"--control={path}"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is not a service that this command understands" in said


@pytest.mark.parametrize("answer", [b"", line()[:-5]])
def test_a_service_that_stops_before_its_answer(capsys, tmp_path, answer) -> None:
    path = tmp_path / "control"
    with answering(path, answer):
        assert main(["revoke", "--all", f"--control={path}"]) == 1
    assert capsys.readouterr().err == (
        f"envelope revoke: cannot ask the service at {path}: it ended the connection before its "
        "answer\n"
    )


def test_nobody_answers(capsys, tmp_path) -> None:
    path = tmp_path / "control"
    assert main(["sessions", f"--control={path}"]) == 1
    assert "no service is at" in capsys.readouterr().err
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
        assert main(["status", f"--control={path}"]) == 1
    assert "no service is at" in capsys.readouterr().err
    assert main(["status", f"--control={tmp_path / ('x' * 200)}"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    path.unlink()
    with answering(path, None), pytest.raises(Failed, match="has not answered within"):
        ask(path, b"\n", wait=0.05)


def test_a_service_that_hangs_while_others_wait(capsys, tmp_path) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as hanging, socket.socket(socket.AF_UNIX) as other:
        hanging.bind(str(path))
        hanging.listen(0)
        other.connect(str(path))
        assert main(["revoke", "--all", f"--control={path}"]) == 1
    assert capsys.readouterr().err == (
        f"envelope revoke: the service at {path} does not answer, and too many others wait for it\n"
    )


@given(st.integers(1, 100), st.lists(st.lists(st.text(), min_size=3, max_size=3)))
def test_no_line_is_wider_than_the_terminal(width, rows) -> None:
    for row in table("abc", rows, width, right=(1,)).split("\n"):
        assert width_of(row) <= width
        assert row.isprintable()


def test_the_room_of_a_column_that_is_left_out_is_used() -> None:
    rows = [("one", "subject", "9" * 20)]
    assert table(("ID", "SUBJECT", "BYTES"), rows, 20, right=(2,)) == "ID   SUBJECT\none  subject"
    assert table(("ID", "SUBJECT", "BYTES"), rows, 11, right=(2,)) == "ID   SUBJE…\none  subje…"


def test_a_narrow_terminal_keeps_ids_and_addresses() -> None:
    wide = sessions_table([SESSION], 1005.0, None)
    for width in range(30, width_of(wide.split("\n")[1])):
        head, row = sessions_table([SESSION], 1005.0, width).split("\n")
        assert row.startswith("0123456789ab  2001:db8::7")
        assert ("1m00s" in row) == ("LEFT" in head)


def test_words() -> None:
    assert [lasting(each) for each in (-1, 0.4, 59.6, 3599, 3600, 90_000, 1e6)] == [
        "0s", "0s", "1m00s", "59m59s", "1h00m", "1d01h", "11d13h"]
    assert [amount(each) for each in (None, 0, 999, 1000, 1_500_000, 2 * 10**15)] == [
        "-", "0 B", "999 B", "1.0 kB", "1.5 MB", "2000.0 TB"]
    assert [cut("漢字abc", width) for width in (7, 6, 4, 1, 0)] == [
        "漢字abc", "漢字a…", "漢…", "…", ""]
