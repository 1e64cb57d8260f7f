"""The log as JSON: every line an object, nothing secret in any, wherever twistd sends it."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.logger import LogEvent, LogLevel
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from envelope.runtime.jsonlog import as_json
from envelope.runtime.servicelog import ServiceLog
from tests.credentials.test_jwks_url import get
from tests.end_to_end.credentialfiles import MACHINE, SUBJECT, make_key, sign
from tests.support.loopbackservice import port_of, twistd

EVENT: LogEvent = {
    "log_time": 1_795_579_200.25, "log_level": LogLevel.warn, "log_namespace": "envelope.sessions",
    "log_format": "session {id} from {address} ended after {seconds:.1f} s",
    "id": "a86b388b2caf", "address": ip_address("192.0.2.1"), "seconds": 3.0,
}


def read(event: LogEvent) -> dict[str, Any]:
    line = as_json(event)
    assert line is not None
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert line.isascii()
    value = json.loads(line)
    assert list(value)[:4] == ["time", "level", "namespace", "message"]
    return dict(value)


def test_our_own_events_have_their_values() -> None:
    assert read(EVENT) == {
        "time": "2026-11-25T04:00:00.250Z", "level": "warn", "namespace": "envelope.sessions",
        "message": "session a86b388b2caf from 192.0.2.1 ended after 3.0 s",
        "id": "a86b388b2caf", "address": "192.0.2.1", "seconds": 3.0,
    }


def test_events_of_others_have_the_message_alone() -> None:
    """What Twisted's own carry are objects of its own."""
    event = {**EVENT, "log_namespace": "twisted.internet.base", "reactor": object()}
    assert list(read(event)) == ["time", "level", "namespace", "message"]


def test_values_do_not_replace_time_or_level() -> None:
    event = {**EVENT, "time": "yesterday", "level": "none", "message": "{}", "namespace": "x"}
    assert read(event)["time"].startswith("2026-")
    assert read(event)["level"] == "warn"
    assert read(event)["namespace"] == "envelope.sessions"


def test_a_failure_has_its_traceback() -> None:
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        failure = Failure()
    told = read({"log_failure": failure, "log_level": LogLevel.critical, "log_time": 0.0,
                 "log_namespace": "envelope"})
    assert told["message"] == "broken"
    assert told["traceback"].rstrip().endswith("RuntimeError: broken")


def test_an_event_without_message_is_no_line() -> None:
    assert as_json({"log_format": "", "log_time": 0.0}) is None


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_text_is_one_line(message: str, value: str) -> None:
    told = read({**EVENT, "log_format": "{text}", "text": message, "value": value})
    assert (told["message"], told["value"]) == (message, value)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
))
@example("\u00e9::1")
@example({"claim": ["\u00e91.2.3.4"]})
def test_hidden_addresses_leave_it_json(value: object) -> None:
    """Also behind characters that JSON escapes with digits, which could be an address's own."""
    line = as_json({**EVENT, "claims": {"x": value}}, "none")
    assert line is not None
    assert json.loads(line)["address"] == "-"


@pytest.mark.parametrize("before", ["\u201c", "\u00e9", "\b", "\f", "\x1f"])
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_an_address_behind_an_escape_is_hidden(before: str, address: str) -> None:
    told = json.loads(as_json({**EVENT, "why": f"{before}{address}"}, "none") or "")
    assert told["why"] == f"{before}-"


@pytest.mark.parametrize("name", ["syslog", "logger"])
def test_another_log_excludes_it(name: str) -> None:
    with pytest.raises(UsageError, match=f"--{name} exclude"):
        ServiceLog().choose({"syslog": False, "logger": None, name: "x"}, "json")


def test_another_observer_would_show_addresses() -> None:
    with pytest.raises(UsageError, match="--log-addresses=none and twistd's --logger exclude"):
        ServiceLog().choose({"syslog": False, "logger": "x"}, "text", "none")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_part_of_an_event_shows_an_address(
    capfd: pytest.CaptureFixture[str], log_format: str
) -> None:
    """Neither message, field nor traceback; but those that this host listens on are shown."""
    log = ServiceLog()
    log.choose({"syslog": False, "logger": None, "nodaemon": True}, log_format, "none")
    observe = log._to_file()
    log.start()
    try:
        raise RuntimeError("no route to 192.0.2.1 or [2001:db8::1]:443")
    except RuntimeError:
        failure = Failure()
    for event in (
        {**EVENT, "rule": "-s 192.0.2.1/32 -j ACCEPT", "log_failure": failure},
        {**EVENT, "log_format": "listening on {address}", "log_own_address": True},
    ):
        observe(event)
    log._close()
    *hidden, own = capfd.readouterr().out.splitlines()
    assert "listening on 192.0.2.1" in own
    shown = "\n".join(hidden)
    assert "session a86b388b2caf from - ended after 3.0 s" in shown
    assert "no route to - or [-]:443" in shown
    assert "192.0.2" not in shown
    assert "2001:db8" not in shown


def serve(folder: Path, *options: str) -> list[str]:
    """What a service prints that judges two tokens."""
    key = make_key(folder)
    tokens = [sign(key), sign(key, sub="somebody")]
    who = (f"--machine={MACHINE}", f"--subject={SUBJECT}", "--verify-key=key.pub")
    with twistd(folder, *who, *options) as service:
        port = port_of(service)
        service.until(r"\bready\b")
        paths = [f"/v0/envelope/access?access_token={token}" for token in tokens]
        assert [get(port, path)[0] for path in paths] == [426, 400]
        assert service.stop() == 0
        while service.next() is not None:
            pass
    for token in tokens:
        assert not [line for line in service.seen if token.split(".")[1] in line]
    return service.seen


@pytest.mark.process
def test_a_service_from_start_to_stop(tmp_path: Path) -> None:
    """Twisted's own lines are JSON too; no token is in any."""
    told = [json.loads(line) for line in serve(tmp_path, "--log-format=json")]
    assert {"envelope", "envelope.connection"} <= {each["namespace"] for each in told}
    assert any("twistd" in each["message"] for each in told)


@pytest.mark.process
def test_no_token_is_in_the_text_either(tmp_path: Path) -> None:
    assert any("refused with 426" in line for line in serve(tmp_path))


@pytest.mark.process
def test_the_destination_is_twistds_option(tmp_path: Path) -> None:
    """--logfile is a file; what ends the start is a line on standard error all the same."""
    (tmp_path / "taken").mkdir()
    before = ("--logfile=here.log",)
    with twistd(
        tmp_path, "--token-required=false", "--log-format=json", "--listen=unix:taken",
        before=before,
    ) as service:
        assert (service.next() or "").startswith("envelope: cannot listen on unix:taken")
        assert service.next() is None
        assert service.ended() == 1
    lines = (tmp_path / "here.log").read_text().splitlines()
    assert [json.loads(line) for line in lines]


@pytest.mark.process
def test_syslog_is_refused_in_one_line(tmp_path: Path) -> None:
    with twistd(
        tmp_path, "--token-required=false", "--log-format=json", before=("--syslog",)
    ) as service:
        assert service.next() == (
            "envelope: --log-format=json and twistd's --syslog exclude each other"
        )
        assert service.ended() == 1
