"""Requests: their bytes, and what they are parsed to."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.credentials.tokens import TokenReason, TokenRefusal
from envelope.front.handshake import (
    BAD_REQUEST,
    HEAD_TOO_LARGE,
    HeadReader,
    access_token,
    parse_handshake,
    refusal_response,
    switching_response,
)
from envelope.sessions.answers import (
    BAD_UPGRADE,
    NOT_AN_UPGRADE,
    OVER_RATE,
    WRONG_METHOD,
    WRONG_SUBPROTOCOL,
    WRONG_VERSION,
    Refusal,
    Refused,
    unauthorised,
)

OURS = "net.measurementlab.envelope"
GOOD: dict[str, list[str]] = {
    "Host": ["envelope.example"],
    "Connection": ["Upgrade"],
    "Upgrade": ["websocket"],
    "Sec-WebSocket-Version": ["13"],
    "Sec-WebSocket-Key": ["dGhlIHNhbXBsZSBub25jZQ=="],
}


def ask(version: str = "1.1", target: str = "/x", **changes: list[str] | None) -> h11.Request:
    """A good request but for `changes`: header (`_` for `-`) to its values, None for none."""
    headers = dict(GOOD)
    for name, values in changes.items():
        headers[name.replace("_", "-")] = values or []
    flat = [
        (name.encode(), value.encode("latin-1"))
        for name, values in headers.items() for value in values
    ]
    return h11.Request(method="GET", target=target, headers=flat, http_version=version)


def test_the_101_is_these_bytes_and_no_others() -> None:
    """The key and its answer are the example of RFC 6455 section 1.3; no server is named."""
    assert switching_response("dGhlIHNhbXBsZSBub25jZQ==", None) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )


def test_the_101_names_the_sub_protocol_that_was_chosen() -> None:
    written = switching_response("aGVsbG8K", OURS)
    assert f"\r\nSec-WebSocket-Protocol: {OURS}\r\n".encode() in written


def fault(**changes: list[str] | None) -> Refusal | None:
    return parse_handshake(ask(**changes)).request.upgrade_fault


@pytest.mark.parametrize(
    ("query", "token"),
    [
        ("", None),
        ("access_token", ""),
        ("access_token=", ""),
        ("access_token=a.b.c", "a.b.c"),
        ("access_token=first&access_token=second", "first"),
        ("access_token=&access_token=second", ""),
        ("x=1&y=2&access_token=t&z", "t"),
        ("access%5Ftoken=t", "t"),
        ("ACCESS_TOKEN=t", None),
        ("access_tokens=t", None),
        ("x=access_token=t", None),
        ("access_token=a=b", "a=b"),
        ("access_token=a%2Eb", "a.b"),
        ("access_token=a+b", "a b"),
        ("access_token=%", "%"),
        ("access_token=%ff", "\N{REPLACEMENT CHARACTER}"),
        ("access_token=%00", "\0"),
        ("&&&access_token=t", "t"),
        ("?access_token=t", None),
        ("&".join(f"p{n}=1" for n in range(500)) + "&access_token=t", "t"),
    ],
)
def test_the_first_access_token_counts(query: str, token: str | None) -> None:
    assert access_token(query) == token


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_no_query_raises(query: str) -> None:
    found = access_token(query)
    assert found is None or isinstance(found, str)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v0/envelope/access", "/v0/envelope/access"),
        ("/v0/envelope/access?", "/v0/envelope/access"),
        ("/v0/envelope/access?a?b", "/v0/envelope/access"),
        ("//v0/envelope/access", "//v0/envelope/access"),
        ("/v0/envelope/access#f", "/v0/envelope/access#f"),
        ("/v0/envelope%2Faccess", "/v0/envelope%2Faccess"),
        ("http://x/v0/envelope/access", "/v0/envelope/access"),
        ("HTTPS://[2001:db8::1]:8880/v0/envelope/access?a=/", "/v0/envelope/access"),
        ("http://x//v0/envelope/access", "//v0/envelope/access"),
        ("http://x?/v0/envelope/access", "http://x"),
        ("http:///v0/envelope/access", "http:///v0/envelope/access"),
        ("wss://x/v0/envelope/access", "wss://x/v0/envelope/access"),
        ("*", "*"),
    ],
)
def test_the_path_is_not_normalised(target: str, path: str) -> None:
    assert parse_handshake(ask(target=target)).request.path == path


def test_a_good_handshake_has_no_fault() -> None:
    parsed = parse_handshake(ask())
    assert parsed.request.upgrade_fault is None
    assert parsed.request.subprotocol is None
    assert parsed.key == "dGhlIHNhbXBsZSBub25jZQ=="


@pytest.mark.parametrize(
    "changes",
    [
        {"Connection": ["keep-alive, Upgrade"]},
        {"Connection": ["keep-alive", "upgrade"]},
        {"Connection": [",UPGRADE,"]},
        {"Upgrade": ["WebSocket"]},
        {"Upgrade": ["h2c, websocket"]},
        {"Sec_WebSocket_Key": ["aGVsbG8K"]},
        {"Sec_WebSocket_Key": ["x"]},
        {"Sec_WebSocket_Key": ["k" * 64]},
        {"Content_Length": ["0"]},
        {"Sec_WebSocket_Extensions": ["permessage-deflate; client_max_window_bits"]},
        {"Origin": ["null"]},
        {"Origin": ["https://evil.example"]},
        {"Sec_WebSocket_Protocol": [""]},
        {"Sec_WebSocket_Protocol": [",,"]},
    ],
)
def test_variants_that_are_accepted(changes: dict[str, list[str]]) -> None:
    assert fault(**changes) is None


@pytest.mark.parametrize(
    ("refusal", "changes"),
    [
        (NOT_AN_UPGRADE, {"Upgrade": None}),
        (NOT_AN_UPGRADE, {"Upgrade": None, "Connection": None}),
        (NOT_AN_UPGRADE, {"Upgrade": ["h2c"]}),
        (NOT_AN_UPGRADE, {"Upgrade": ["websocket2"]}),
        (BAD_UPGRADE, {"Connection": None}),
        (BAD_UPGRADE, {"Connection": ["close"]}),
        (BAD_UPGRADE, {"Connection": ["upgraded"]}),
        (WRONG_VERSION, {"Sec_WebSocket_Version": None}),
        (WRONG_VERSION, {"Sec_WebSocket_Version": [""]}),
        (WRONG_VERSION, {"Sec_WebSocket_Version": ["8"]}),
        (WRONG_VERSION, {"Sec_WebSocket_Version": ["1_3"]}),
        (WRONG_VERSION, {"Sec_WebSocket_Version": ["013"]}),
        (WRONG_VERSION, {"Sec_WebSocket_Version": ["+13"]}),
        (WRONG_VERSION, {"Sec_WebSocket_Version": ["8, 13"]}),
        (WRONG_VERSION, {"Sec_WebSocket_Version": ["8"], "Sec_WebSocket_Key": None}),
        (BAD_UPGRADE, {"Sec_WebSocket_Version": ["13", "13"]}),
        (BAD_UPGRADE, {"Sec_WebSocket_Key": None}),
        (BAD_UPGRADE, {"Sec_WebSocket_Key": [""]}),
        (BAD_UPGRADE, {"Sec_WebSocket_Key": ["a b"]}),
        (BAD_UPGRADE, {"Sec_WebSocket_Key": ["\u00e9"]}),
        (BAD_UPGRADE, {"Sec_WebSocket_Key": ["k" * 65]}),
        (BAD_UPGRADE, {"Sec_WebSocket_Key": ["one", "two"]}),
        (BAD_UPGRADE, {"Content_Length": ["5"]}),
        (BAD_UPGRADE, {"Transfer_Encoding": ["chunked"]}),
        (BAD_UPGRADE, {"Transfer_Encoding": ["chunked"], "Content_Length": ["0"]}),
        (WRONG_SUBPROTOCOL, {"Sec_WebSocket_Protocol": ["chat"]}),
        (WRONG_SUBPROTOCOL, {"Sec_WebSocket_Protocol": ["chat, superchat"]}),
        (WRONG_SUBPROTOCOL, {"Sec_WebSocket_Protocol": [OURS.upper()]}),
        (WRONG_SUBPROTOCOL, {"Sec_WebSocket_Protocol": [OURS + "x"]}),
    ],
)
def test_faults_of_the_handshake(refusal: Refusal, changes: dict[str, list[str] | None]) -> None:
    assert fault(**changes) is refusal


def test_http_1_0_cannot_upgrade() -> None:
    assert parse_handshake(ask(version="1.0")).request.upgrade_fault is BAD_UPGRADE


@pytest.mark.parametrize(
    "offer", [[OURS], ["chat, " + OURS], [OURS + ",chat"], ["chat", OURS], ["", OURS]]
)
def test_our_sub_protocol_is_found_among_others(offer: list[str]) -> None:
    parsed = parse_handshake(ask(Sec_WebSocket_Protocol=offer)).request
    assert parsed.upgrade_fault is None
    assert parsed.subprotocol == OURS


def verdict(data: bytes, cuts: list[int], size: int = 400, lines: int = 8) -> object:
    """The request in `data` and the bytes after it, or the refusal; `data` is split at `cuts`."""
    reader = HeadReader(size, lines)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    try:
        for start, end in pairwise(edges):
            found = reader.feed(data[start:end])
            if found is not None:
                request, rest = found
                return request.method, request.target, list(request.headers), rest + data[end:]
    except Refused as refused:
        return refused.refusal
    return None


HEADS = st.lists(
    st.sampled_from([
        b"GET / HTTP/1.1\r\n", b"GET /", b" HTTP/1.1", b"Host: a\r\n", b"X: 1\r\n", b" folded\r\n",
        b"\r\n", b"\n", b"\r", b"x" * 150, b"\x00", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n",
        b"Content-Length: 5\r\n", b"\xff", b": ", b"rest",
    ]),
    max_size=14,
).map(b"".join)


@given(HEADS, st.lists(st.integers(0, 500), max_size=12))
def test_the_result_does_not_depend_on_how_bytes_are_split(data: bytes, cuts: list[int]) -> None:
    assert verdict(data, cuts) == verdict(data, []) == verdict(data, list(range(len(data))))


@given(st.binary(max_size=600))
def test_random_bytes_never_raise(data: bytes) -> None:
    verdict(data, [len(data) // 2])


@pytest.mark.parametrize(
    ("size", "refusal"), [(400, None), (401, HEAD_TOO_LARGE)], ids=["fits", "one too many"]
)
def test_the_head_is_bounded_to_the_byte(size: int, refusal: Refusal | None) -> None:
    start, end = b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n\r\n"
    data = start + b"x" * (size - len(start) - len(end)) + end
    found = verdict(data, [])
    assert found is refusal if refusal else isinstance(found, tuple)


@pytest.mark.parametrize(("headers", "refusal"), [(5, None), (6, HEAD_TOO_LARGE)])
def test_the_lines_are_bounded(headers: int, refusal: Refusal | None) -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * headers + b"\r\n"
    found = verdict(data, [])
    assert found is refusal if refusal else isinstance(found, tuple)


def test_a_line_without_end_is_too_large() -> None:
    assert verdict(b"GET /" + b"x" * 500, []) is HEAD_TOO_LARGE


@pytest.mark.parametrize("host", [b"a b", b"a,b", b"a/b", b"a@b", b'"', b"\xe9"])
def test_invalid_hosts(host: bytes) -> None:
    assert verdict(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", []) is BAD_REQUEST


@pytest.mark.parametrize("host", [b"", b"a.example:8880", b"[2001:db8::1]:8880", b"203.0.113.7"])
def test_valid_hosts(host: bytes) -> None:
    assert isinstance(verdict(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", []), tuple)


def test_a_refusal_is_these_bytes_and_no_others() -> None:
    assert refusal_response(WRONG_METHOD, "POST") == (
        b"HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 27\r\nCache-Control: no-store\r\nConnection: close\r\nAllow: GET\r\n\r\n"
        b"Only GET is answered here.\n"
    )


def test_an_answer_to_head_has_no_body() -> None:
    with_body = refusal_response(WRONG_METHOD, "GET")
    without = refusal_response(WRONG_METHOD, "HEAD")
    assert with_body == without + b"Only GET is answered here.\n"


@pytest.mark.parametrize(
    ("refusal", "header"),
    [
        (NOT_AN_UPGRADE, b"\r\nSec-WebSocket-Version: 13\r\n"),
        (OVER_RATE, b"\r\nRetry-After: 10\r\n"),
        (
            unauthorised(TokenRefusal(TokenReason.MISSING)),
            b'\r\nWWW-Authenticate: Bearer realm="envelope"',
        ),
    ],
)
def test_an_answer_carries_the_headers_of_its_refusal(refusal: Refusal, header: bytes) -> None:
    assert header in refusal_response(refusal)
