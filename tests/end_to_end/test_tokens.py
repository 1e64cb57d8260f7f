"""The attacks on tokens, sent to the real service with the same keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from envelope.front.limits import Limits
from tests.end_to_end.serviceprocess import ServiceProcess, describe
from tests.support.frontfakes import UPGRADE, close_frame, request
from tests.support.tokenattacks import ATTACKS
from tests.support.tokenmaking import GOOD, KINDS, PUBLIC_SET, signed

ACCESS = b"/v0/envelope/access"


@pytest.fixture(scope="module")
def running(tmp_path_factory: Any) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "set.json").write_text(PUBLIC_SET)
    with ServiceProcess(
        folder, f"--verify-key={folder / 'set.json'}", "--machine=mlab1", "--max-clients=3",
        listen=("127.0.0.1:0",), tls=False,
    ) as running:
        yield running
        running.stop()


def ask(running: ServiceProcess, target: bytes, more: bytes = b"", method: bytes = b"GET",
        after: bytes = b"") -> dict[str, Any]:
    line = method + b" " + target + b" HTTP/1.1"
    return describe(running.exchange(request(line, UPGRADE + more, after)))


def query(token: str) -> bytes:
    return b"?access_token=" + quote(token, safe=".", errors="surrogatepass").encode()


@pytest.mark.parametrize("alg", KINDS)
def test_a_good_token_of_each_kind_is_let_in(running: ServiceProcess, alg: str) -> None:
    """Checked by the service's own clock."""
    answer = ask(running, ACCESS + query(signed(GOOD, alg)), after=close_frame(1000))
    assert answer["status"] == 101
    running.wait_until_idle()


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_answered_with_401(running: ServiceProcess, name: str) -> None:
    """With WWW-Authenticate, and a body that does not depend on the token."""
    target = ACCESS + (query(ATTACKS[name][0]) if ATTACKS[name][0] else b"?access_token=x")
    answer = ask(running, target)
    if len(target) > Limits().head_bytes - 500:
        assert answer["status"] in (401, 431)
    else:
        assert answer["status"] == 401
        assert "www-authenticate" in answer["headers"]
        assert answer["body"] == b"The access token is not valid here.\n"


TOKEN = signed(GOOD).encode()
BEARER = b"Authorization: Bearer " + TOKEN + b"\r\n"
ELSEWHERE: dict[str, tuple[dict[str, bytes], int]] = {
    "in a header": ({"target": ACCESS, "more": BEARER}, 401),
    "in a cookie": ({"target": ACCESS, "more": b"Cookie: access_token=" + TOKEN + b"\r\n"}, 401),
    "as a sub-protocol": (
        {"target": ACCESS, "more": b"Sec-WebSocket-Protocol: " + TOKEN + b"\r\n"}, 401),
    "in the body": (
        {"target": ACCESS, "method": b"POST", "after": b"access_token=" + TOKEN,
         "more": b"Content-Type: application/x-www-form-urlencoded\r\n"
                 b"Content-Length: %d\r\n" % (len(TOKEN) + 13)}, 401),
    "in a fragment": ({"target": ACCESS + b"#access_token=" + TOKEN}, 404),
    "in the path": ({"target": ACCESS + b"/" + TOKEN}, 404),
    "behind a semicolon": ({"target": ACCESS + b"?a=b;access_token=" + TOKEN}, 401),
    "under another name": ({"target": ACCESS + b"?token=" + TOKEN}, 401),
    "under its name in capitals": ({"target": ACCESS + b"?ACCESS_TOKEN=" + TOKEN}, 401),
    "as a list": ({"target": ACCESS + b"?access_token[]=" + TOKEN}, 401),
    "second to another": ({"target": ACCESS + b"?access_token=x&access_token=" + TOKEN}, 401),
    "second to nothing": ({"target": ACCESS + b"?access_token=&access_token=" + TOKEN}, 401),
    "besides a bad one in the query": (
        {"target": ACCESS + b"?access_token=x", "more": BEARER}, 401),
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_good_token_anywhere_but_in_the_query_is_ignored(
    running: ServiceProcess, where: str
) -> None:
    """Only the first `access_token` of the query counts."""
    how, status = ELSEWHERE[where]
    assert ask(running, **how)["status"] == status
