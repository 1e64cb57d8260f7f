"""The object of `/status`, made from values."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

from envelope import __version__
from envelope.addresses import PortRange
from envelope.admin.history import History
from envelope.admin.overview import Overview
from envelope.config import OPTIONS, Config
from envelope.config.shown import shown
from envelope.config.subjects import Subject
from envelope.credentials.inuse import CertificateInUse, KeyInUse
from envelope.firewall import RulesInForce
from envelope.sessions.view import SessionView, Slots

SECRET = "tell-nobody"
CONFIG = Config(
    verify_key=(Path("/keys/one.pub"),), machine="mlab1.lga03", timeout=90.0,
    subject=(Subject("ndt"), Subject.parse("wehe=tcp/1-2+udp/3")),
    verify_jwks_url=f"https://keys.example:8443/set.json?auth={SECRET}",
    grant_port=(PortRange("tcp", 5201, 5210),), proxy_port=(80, 443),
)


def overview(**changes: object) -> dict[str, object]:
    """The object of an idle service, or with these values."""
    values = {
        "config": CONFIG, "now": 1_000_060.5, "uptime": 60.5,
        "slots": Slots(0, 2), "sessions": (), "refusals": {}, "rules": RulesInForce(), "keys": (),
        "certificate": None, "reasons": (), "warnings": (),
        "history": History(), "rate": None,
    }
    return json.loads(json.dumps(Overview(**{**values, **changes}).as_object()))


def test_the_members_that_are_promised() -> None:
    """Contract section 5."""
    told = overview(
        refusals={"expired": 2}, rules=RulesInForce(("a", "b"), ("a",)), warnings=("look",),
        slots=Slots(1, 2),
    )
    assert told["version"] == __version__
    assert told["uptime"] == 60.5
    assert told["slots"] == {"used": 1, "total": 2}
    assert told["sessions"] == []
    assert told["refusals"] == {"expired": 2}
    assert told["rules"] == {"wanted": ["a", "b"], "held": ["a"]}
    assert told["warnings"] == ["look"]
    assert {"options", "keys", "certificate"} <= told.keys()


def test_a_session_has_all_that_is_known_of_it() -> None:
    view = SessionView(
        id="abc", address=ip_address("203.0.113.7"), network=ip_network("203.0.113.0/24"),
        subject="ndt", since=1_000_000.25, until=1_000_060.0, packets=3, bytes=180,
        claims={"site": "<b>", "level": 2},
    )
    assert overview(sessions=[view])["sessions"] == [{
        "id": "abc", "address": "203.0.113.7", "network": "203.0.113.0/24", "subject": "ndt",
        "since": 1_000_000.25, "until": 1_000_060.0, "packets": 3, "bytes": 180,
        "claims": {"site": "<b>", "level": 2},
    }]
    unknown = replace(view, address=None, network=None, subject=None, packets=None, bytes=None)
    (session,) = overview(sessions=[unknown])["sessions"]
    assert [session[name] for name in ("address", "network", "subject", "packets")] == [None] * 4


def test_readiness_has_its_reasons() -> None:
    assert overview()["ready"] is True
    told = overview(reasons=["stopping"])
    assert (told["ready"], told["reasons"]) == (False, ["stopping"])


def test_keys_and_certificate() -> None:
    told = overview(
        keys=[KeyInUse("one", "EdDSA", "verify-key", 1_000_000.0)],
        certificate=CertificateInUse(("a.example",), 1.0, 2.0, 3.0),
    )
    assert told["keys"] == [
        {"kid": "one", "alg": "EdDSA", "source": "verify-key", "since": 1_000_000.0}
    ]
    assert told["certificate"] == {
        "names": ["a.example"], "not_before": 1.0, "not_after": 2.0, "since": 3.0,
    }


def test_options_are_shown_as_they_were_written() -> None:
    options = overview()["options"]
    assert set(options) == {option.name for option in OPTIONS}
    assert options["listen"] == [":8880"]
    assert options["verify-key"] == ["/keys/one.pub"]
    assert options["grant-port"] == ["tcp/5201-5210"]
    assert options["subject"] == ["ndt", "wehe=tcp/1-2+udp/3"]
    assert not any("(" in str(value) for value in options.values()), "every option has a text"
    assert options["proxy-port"] == [80, 443]
    assert (options["timeout"], options["token-required"], options["cert"]) == (90.0, True, None)


def test_no_secret_of_an_option_is_shown() -> None:
    assert shown(CONFIG)["verify-jwks-url"] == "https://keys.example:8443/set.json"
    assert SECRET not in json.dumps(overview())
