"""What the client reads: URLs, answers, frames, the handshake, and Locate's answers."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.client.answers import Answer, AnswerReader, NoAnswer
from envelope.client.frames import CLOSE, PING, PONG, BrokenFrame, Frame, FrameReader, masked_frame
from envelope.client.handshake import fault_of, handshake_reader
from envelope.client.locate import LocateFailed, urls_of
from envelope.client.outcomes import Ended, Refused, shown
from envelope.client.urls import BadURL, ServerURL
from envelope.front.handshake import HeadReader, parse_handshake
from envelope.protocol import End

TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJsb2NhdGUifQ.c2lnbmF0dXJl"
ACCESS = f"wss://one.example:8880/v0/envelope/access?access_token={TOKEN}"


def parse(text: str) -> ServerURL:
    return ServerURL.parse(text, "ws", "wss")


# -- URLs ------------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "host", "port", "secure", "target", "server"), [
    ("wss://a.example/x?y=z", "a.example", 443, True, "/x?y=z", "a.example:443"),
    ("ws://a.example", "a.example", 80, False, "/", "a.example:80"),
    ("ws://[::1]:8880/", "::1", 8880, False, "/", "[::1]:8880"),
    ("ws://a_b.example./", "a_b.example.", 80, False, "/", "a_b.example.:80"),
    (f"ws://{'a.' * 126}a", f"{'a.' * 126}a", 80, False, "/", f"{'a.' * 126}a:80"),
    ("WSS://192.0.2.1:1/p", "192.0.2.1", 1, True, "/p", "192.0.2.1:1"),
])
def test_a_url_is_taken_apart(text, host, port, secure, target, server) -> None:
    url = parse(text)
    assert (url.host, url.port, url.secure, url.target) == (host, port, secure, target)
    assert url.server == server


@pytest.mark.parametrize("text", [
    "", "a.example", "https://a.example/", "wss:///", "wss://a b/", "wss://a.example/\n",
    "wss://a.example:0/", "wss://a.example:99999/", "wss://[::1/", "wss://ä.example/",
    "wss://user:word@a.example/", "wss://a.example/ä", "wss://a.example/x y",
    "wss://a..example/", "wss://./", f"wss://{'a' * 64}.example/", f"wss://{'a.' * 127}aa/",
])
def test_a_bad_url_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(BadURL) as caught:
        parse(text + ("" if text.endswith("\n") else TOKEN))
    assert "eyJ" not in str(caught.value)
    assert "\n" not in str(caught.value)


# -- answers ---------------------------------------------------------------------------------

def read(*pieces: bytes, most: int = 100) -> Answer | None:
    reader = AnswerReader("h", "/", [("Upgrade", "websocket"), ("Connection", "Upgrade")], most)
    answer = None
    for piece in pieces:
        answer = answer or reader.feed(piece)
    return answer


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(("pieces", "content", "whole"), [
    ([OK + b"Content-Length: 2\r\n\r\n{", b"}"], b"{}", True),
    ([OK + b"\r\n{", b"}", b""], b"{}", True),
    ([OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"], b"x", True),
    ([b"HTTP/1.1 103 Early\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n"], b"", True),
    ([OK + b"Content-Length: 9\r\n\r\nab", b""], b"ab", False),
    ([OK + b"Content-Length: 100\r\n\r\n" + b"x" * 100], b"x" * 100, True),
    ([OK + b"Content-Length: 101\r\n\r\n" + b"x" * 101], b"x" * 100, False),
    ([OK + b"\r\n" + b"x" * 5000], b"x" * 100, False),
    ([OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"], b"", False),
])
def test_answers_are_read_up_to_a_limit(pieces, content, whole) -> None:
    answer = read(*pieces)
    assert answer is not None
    assert (answer.status, answer.content, answer.whole) == (200, content, whole)


@pytest.mark.parametrize("data", [
    b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 " + b"x" * 40_000,
    OK + b"X: y\r\n" * 5_000, b"HTTP/1.1 103 Early Hints\r\n\r\n" * 4_000, OK,
])
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(NoAnswer):
        read(*(data[start : start + 9_000] for start in range(0, len(data), 9_000)), b"")


def test_bytes_after_the_switch_are_kept() -> None:
    reader = AnswerReader("h", "/", [("Upgrade", "websocket"), ("Connection", "Upgrade")], 100)
    answer = reader.feed(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x88\x00")
    assert answer is not None
    assert (answer.status, reader.rest) == (101, b"\x88\x00")


@pytest.mark.parametrize(("value", "seconds"), [
    ("7", 7), ("Fri, 31 Dec 1999 23:59:59 GMT", None), ("-1", None), ("9" * 30, None),
])
def test_retry_after(value: str, seconds: int | None) -> None:
    assert Answer(503, (("retry-after", value),), b"", True).retry_after == seconds


# -- frames (RFC 6455 section 5) -------------------------------------------------------------

CLOSED = bytes([0x88, 2]) + (4000).to_bytes(2)


@given(st.integers(0, 12))
def test_frames_are_read_from_any_pieces(cut: int) -> None:
    data = b"\x89\x02hi" + b"\x8a\x00" + CLOSED + b"\xff"
    reader = FrameReader()
    frames = reader.feed(data[:cut]) + reader.feed(data[cut:])
    assert frames == [
        Frame(PING, b"hi"), Frame(PONG, b""), Frame(CLOSE, (4000).to_bytes(2), 4000),
    ]


@pytest.mark.parametrize("data", [
    b"\x81\x01x", b"\x82\x00", b"\x80\x00", b"\x01\x00",  # data, and pieces of it
    b"\x08\x00", b"\x09\x00",  # control frames in pieces (section 5.5)
    b"\xc8\x00", b"\xa9\x00", b"\x99\x00",  # reserved bits (section 5.2)
    b"\x83\x00", b"\x8b\x00",  # reserved opcodes
    b"\x89\x80\x00\x00\x00\x00",  # masked (section 5.1)
    b"\x89\x7e\x00\x7e", b"\x89\x7f",  # longer than 125 bytes
    b"\x88\x01\x03", b"\x88\x02\x03\xed", b"\x88\x02\x00\x00", b"\x88\x02\x13\x88",  # codes
    b"\x88\x03\x03\xe8\xff",  # not UTF-8
    b"HTTP/1.1",
])
def test_a_broken_frame_is_recognised(data: bytes) -> None:
    with pytest.raises(BrokenFrame):
        FrameReader().feed(data)


@given(st.lists(st.binary(max_size=300), max_size=9))
def test_the_reader_holds_one_control_frame_at_most(pieces: list[bytes]) -> None:
    reader = FrameReader()
    try:
        for piece in pieces:
            if any(frame.opcode == CLOSE for frame in reader.feed(piece)):
                return
            assert len(reader._buffer) < 127
    except BrokenFrame:
        pass


def test_a_frame_of_the_client_is_masked() -> None:
    """The example of section 5.7, as a pong."""
    frame = masked_frame(PONG, b"Hello", bytes([0x37, 0xFA, 0x21, 0x3D]))
    assert frame == bytes([0x8A, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58])


# -- the handshake ---------------------------------------------------------------------------

KEY = base64.b64encode(b"k" * 16)
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


def test_the_service_reads_the_request() -> None:
    """It is complete and offers the sub-protocol."""
    request = handshake_reader(parse(ACCESS), KEY, "tests/1").request
    found = HeadReader(16_384, 100).feed(request)
    assert found is not None
    shake = parse_handshake(found[0])
    assert (shake.request.token, shake.request.upgrade_fault) == (TOKEN, None)
    assert shake.request.subprotocol == "net.measurementlab.envelope"
    assert b"\r\nHost: one.example:8880\r\n" in request
    assert b"\r\nUser-Agent: tests/1\r\n" in request


RIGHT = {"upgrade": "WebSocket", "connection": "Upgrade", "sec-websocket-accept": ACCEPT.decode()}


@pytest.mark.parametrize(("changes", "fault"), [
    ({}, None), ({"sec-websocket-protocol": "net.measurementlab.envelope"}, None),
    ({"connection": "keep-alive, upgrade"}, None),
    ({"upgrade": "h2c"}, "another protocol"), ({"connection": "close"}, "another protocol"),
    ({"sec-websocket-accept": "x"}, "Accept"), ({"sec-websocket-extensions": "x"}, "extension"),
    ({"sec-websocket-protocol": "chat"}, "sub-protocol"),
])
def test_the_answer_is_checked(changes: dict[str, str], fault: str | None) -> None:
    found = fault_of(Answer(101, tuple((RIGHT | changes).items()), b"", True), KEY)
    assert (found is None) if fault is None else fault in str(found)


# -- outcomes --------------------------------------------------------------------------------

@pytest.mark.parametrize(("code", "end"), [
    (1000, "closed"), (1001, "stopping"), (1003, "data"), (4000, "deadline"), (4001, "revoked"),
    (4002, "idle"), (1011, "closed"), (None, "closed"),
])
def test_the_end_by_its_close_code(code: int | None, end: str) -> None:
    assert Ended.of_code(code) == end


def test_the_client_knows_every_end_of_the_service() -> None:
    known = {End.CLIENT: "closed", End.SHUTDOWN: "stopping"}
    for end in End:
        if end.code is not None:
            assert Ended.of_code(end.code) == known.get(end, end.value)


@pytest.mark.parametrize(("text", "seen"), [
    ("The service is full.\n", "The service is full."), ("a\r\n\x1b[2Jb", "a ?[2Jb"),
    (f"no {TOKEN}!", "no (token)!"), (f"no {TOKEN[:30]}", "no (token)"), ("a secret", "a (token)"),
    ("x" * 400, "x" * 300 + "..."),
])
def test_a_shown_text_is_one_line_without_the_token(text: str, seen: str) -> None:
    assert shown(text, "wss://a/?access_token=secret") == seen


def test_a_refusal_in_words() -> None:
    assert str(Refused("a:1", 503, "full", 7)) == "a:1: 503 full"
    assert str(Refused("a:1", None, "no connection")) == "a:1: no connection"


# -- Locate ----------------------------------------------------------------------------------

def located(content: Any, key: str | None = None, status: int = 200, **headers: str) -> list[str]:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    names = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return urls_of(Answer(status, names, text, True), key)


def results(*offers: Any) -> dict[str, Any]:
    return {"results": [{"machine": "m", "urls": offer} for offer in offers]}


def test_the_results_in_their_order() -> None:
    other = ACCESS.replace("one", "two")
    two = results({"wss:///v0/envelope/access": ACCESS}, {"k": other, "x": "ws://x/y"})
    assert located(two) == [ACCESS, other]
    assert located(results({"k": ACCESS}, {"j": other}), "j") == [other]
    plain = ACCESS.replace("wss", "ws")
    assert located(results({"a": plain, "b": ACCESS})) == [ACCESS]
    assert located(results({"a": plain})) == [plain]


@pytest.mark.parametrize(("content", "how", "said"), [
    ({"error": {"type": "x", "title": "No capacity", "detail": "try later", "status": 500}},
     {"status": 500}, "Locate: No capacity: try later (500)"),
    ({"error": {"title": f"a {TOKEN}"}}, {}, "Locate: a (token) (200)"),
    ({"error": {}}, {"status": 404}, "Locate: an error (404)"),
    (b"<html>Too many</html>", {"status": 429, "retry_after": "9"},
     "Locate answered with 429 (too many requests), and not in JSON; it asks to wait for 9 s"),
    ({"error": {"title": "Busy"}}, {"status": 429, "retry_after": "9"},
     "Locate: Busy (429); it asks to wait for 9 s"),
    ({}, {"status": 429}, "Locate answered with 429 (too many requests)"),
    (b"<html>\nbad gateway", {"status": 502}, "Locate answered with 502, and not in JSON"),
    (b"", {"status": 302}, "Locate answered with 302, and not in JSON; redirects are not followed"),
    (b"[]", {}, "Locate answered with 200, and not in JSON"),
    (b"[" * 100_000, {}, "Locate answered with 200, and not in JSON"),
    (b"\xff", {}, "Locate answered with 200, and not in JSON"),
    ({}, {}, "Locate knows no machine for this service"),
    ({"results": 7}, {}, "Locate knows no machine for this service"),
    ({"results": [7, {}, {"urls": []}]}, {}, "Locate knows no machine for this service"),
    (results({"k": "ws://x/y", "l": 7, "m": "ws://[/"}), {},
     "Locate's machines have no URL with the one path /v0/envelope/access: it has k, l, m"),
    (results({"a": ACCESS, "b": ACCESS}), {},
     "Locate's machines have no URL with the one path /v0/envelope/access: it has a, b"),
    (results({"k": 7}), {"key": "k"}, "Locate's machines have no URL under the key 'k': it has k"),
    (results({}), {"key": "k"}, "Locate's machines have no URL under the key 'k': it has none"),
])
def test_what_is_wrong_with_an_answer_of_locate(content, how, said) -> None:
    with pytest.raises(LocateFailed) as caught:
        located(content, **how)
    assert str(caught.value) == said


@pytest.mark.parametrize(("size", "said"), [
    (512_000, "is larger than 512000 bytes"), (511_999, "is incomplete"),
])
def test_an_answer_of_locate_that_is_not_whole(size: int, said: str) -> None:
    with pytest.raises(LocateFailed) as caught:
        urls_of(Answer(200, (), b"x" * size, False), None)
    assert str(caught.value) == f"Locate's answer (200) {said}"
