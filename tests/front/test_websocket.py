"""What frames mean: a channel alone, with a handler that only records."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from envelope.front.websocket import Channel, ChannelFactory
from tests.support.frontfakes import close_frame, frame


class Handler:
    """Records what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def data_frame(self) -> None:
        self.heard.append("data")

    def close_frame(self) -> None:
        self.heard.append("close")

    def close_reply(self) -> None:
        self.heard.append("answered")

    def violation(self, code: int) -> None:
        self.heard.append(code)


def channel(
    clock: Clock | None = None, frames_per_second: int = 10
) -> tuple[Channel, Handler]:
    clock = clock or Clock()
    handler = Handler()
    return ChannelFactory(clock.seconds, frames_per_second, clock).open(handler), handler


def after_101(*pieces: bytes) -> tuple[Channel, Handler]:
    made, handler = channel()
    for piece in pieces:
        made.dataReceived(piece)
    return made, handler


def test_it_sends_nothing_unasked_and_sets_no_timer() -> None:
    clock = Clock()
    made, handler = channel(clock)
    clock.advance(3600)
    assert not clock.getDelayedCalls()
    made.connectionLost()
    assert handler.written == b""
    assert handler.heard == []


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 125])
def test_a_ping_is_answered_with_its_payload(payload: bytes) -> None:
    _, handler = after_101(frame(9, payload))
    assert handler.written == bytes([0x8A, len(payload)]) + payload


def test_an_unasked_pong_is_ignored() -> None:
    _, handler = after_101(frame(10, b"x"), frame(10))
    assert (handler.heard, handler.written) == ([], b"")


@pytest.mark.parametrize(
    "data",
    [
        frame(1, b"hello"), frame(2, b"\x00\xff"), frame(1), frame(2),
        frame(1, b"hel", fin=False), frame(1, b"\xff\xff"),
        frame(1, b"x" * 1000)[:8], frame(2, b"x" * 70000)[:14],
        struct.pack("!BBQ4s", 0x82, 0xFF, 2**62, b"mask"),
    ],
    ids=[
        "text", "binary", "empty text", "empty binary", "fragment", "bad UTF-8",
        "head of 1 kB", "head of 70 kB", "head of 4 EB",
    ],
)
def test_a_data_frame_is_reported_when_its_head_is_complete(data: bytes) -> None:
    made, handler = after_101(data)
    assert handler.heard == ["data"]
    assert handler.written == b""
    assert not made.data


def test_each_data_frame_is_reported_and_none_is_kept() -> None:
    made, handler = after_101(
        frame(1, b"a" * 300, fin=False), frame(9, b"p"), frame(0, b"b" * 300), frame(2, b"c" * 300)
    )
    assert handler.heard == ["data", "data", "data"]
    assert handler.written == b"\x8a\x01p"
    assert "a" * 8 not in repr(vars(made))
    assert "c" * 8 not in repr(vars(made))


def test_a_close_frame_is_not_answered_until_send_close() -> None:
    made, handler = after_101(close_frame(1000, b"bye"))
    assert handler.heard == ["close"]
    assert handler.written == b""
    assert not made.reading
    assert made.send_close(1000)
    assert handler.written == b"\x88\x02\x03\xe8"
    assert not made.send_close(1000)


def test_nothing_after_a_close_frame_is_read() -> None:
    made, handler = after_101(frame(8) + frame(1, b"x"), frame(9), b"\xff" * 50)
    assert handler.heard == ["close"]
    assert handler.written == b""
    assert not made.data


def test_the_reply_to_our_close_frame_is_reported() -> None:
    made, handler = channel()
    assert made.send_close(4000, "deadline")
    assert handler.written.endswith(b"\x88\x0a\x0f\xa0deadline")
    made.dataReceived(frame(1, b"crossing") + close_frame(4000))
    made.dataReceived(frame(8))
    assert handler.heard == ["data", "answered"]


def test_pings_after_our_close_frame_are_not_answered() -> None:
    made, handler = channel()
    made.send_close(1001, "stopping")
    before = handler.written
    made.dataReceived(frame(9, b"x"))
    assert handler.written == before


VIOLATIONS = {
    "unmasked text": (frame(1, b"x", mask=b""), 1002),
    "unmasked ping": (frame(9, b"x", mask=b""), 1002),
    "unmasked close": (frame(8, b"\x03\xe8", mask=b""), 1002),
    "unmasked empty": (b"\x81\x00", 1002),
    "rsv1": (frame(1, b"x", rsv=4), 1002),
    "rsv2": (frame(1, b"x", rsv=2), 1002),
    "rsv3": (frame(9, b"x", rsv=1), 1002),
    "reserved data opcode": (frame(3, b"x"), 1002),
    "reserved data opcode 7": (frame(7, b"x"), 1002),
    "reserved control opcode": (frame(11, b"x"), 1002),
    "reserved control opcode 15": (frame(15, b"x"), 1002),
    "continuation of nothing": (frame(0, b"x"), 1002),
    "fragmented ping": (frame(9, b"x", fin=False), 1002),
    "fragmented close": (frame(8, fin=False), 1002),
    "long ping": (frame(9, b"x" * 126), 1002),
    "very long ping": (struct.pack("!BBQ4s", 0x89, 0xFF, 2**62, b"mask"), 1002),
    "wasteful length, 16 bits": (b"\x82\xfe\x00\x05mask", 1002),
    "wasteful length, 64 bits": (struct.pack("!BBQ4s", 0x82, 0xFF, 5, b"mask"), 1002),
    "negative length": (struct.pack("!BBQ4s", 0x82, 0xFF, 2**63, b"mask"), 1002),
    "close of one byte": (frame(8, b"\x03"), 1002),
    "bad UTF-8 in a close": (close_frame(1000, b"\xff\xfe"), 1007),
    "half a character in a close": (close_frame(1000, "\u00e9".encode()[:1]), 1007),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", 1002),
    "zeros": (b"\0" * 64, 1002),
} | {
    f"close code {code}": (close_frame(code), 1002)
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_reported_and_nothing_after_it_is_read(name: str) -> None:
    data, code = VIOLATIONS[name]
    made, handler = after_101(data + frame(9) + frame(8), frame(1, b"x"))
    assert handler.heard == [code]
    assert handler.written == b""
    assert not made.data
    assert made.send_close(code)
    assert handler.written == b"\x88\x02" + struct.pack("!H", code)


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_reported_however_the_bytes_are_split(name: str) -> None:
    data, code = VIOLATIONS[name]
    _, handler = after_101(*(data[i : i + 1] for i in range(len(data))))
    assert handler.heard == [code]


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1013, 3000, 4000, 4999])
def test_valid_close_codes(code: int) -> None:
    _, handler = after_101(close_frame(code, "au revoir \u00e9".encode()))
    assert handler.heard == ["close"]


@pytest.mark.parametrize("data", [frame(8), frame(8, mask=b"\0\0\0\0")])
def test_a_close_frame_needs_no_code(data: bytes) -> None:
    assert after_101(data)[1].heard == ["close"]


def test_a_new_message_within_a_message_is_a_violation() -> None:
    assert after_101(frame(1, b"x", fin=False), frame(1, b"y"))[1].heard == ["data", 1002]


@pytest.mark.parametrize("opcode", [9, 10, 2])
def test_a_flood_of_frames_is_a_violation(opcode: int) -> None:
    clock = Clock()
    made, handler = channel(clock, frames_per_second=10)
    handler.written = b""
    made.dataReceived(frame(opcode) * 1000)
    assert handler.heard[-1] == 1008
    assert handler.heard.count(1008) == 1
    assert handler.written.count(b"\x8a\x00") <= 10
    made.dataReceived(frame(opcode) * 1000)
    assert handler.heard[-1] == 1008
    assert handler.heard.count(1008) == 1


def test_pings_within_the_rate_are_answered_for_any_time() -> None:
    clock = Clock()
    made, handler = channel(clock, frames_per_second=10)
    for _ in range(100):
        made.dataReceived(frame(9) * 10)
        clock.advance(1)
    assert handler.heard == []
    assert handler.written.count(b"\x8a\x00") == 1000


FRAMES = st.lists(
    st.one_of(
        st.builds(frame, st.integers(0, 15), st.binary(max_size=130), st.booleans()),
        st.builds(close_frame, st.integers(0, 65535), st.binary(max_size=4)),
        st.binary(max_size=8),
    ),
    max_size=8,
).map(b"".join)


@given(FRAMES, st.lists(st.integers(0, 1200), max_size=10))
def test_reports_do_not_depend_on_how_bytes_are_split(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    whole = after_101(data)[1]
    cut = after_101(*(data[a:b] for a, b in pairwise(edges)))[1]
    assert (cut.heard, cut.written) == (whole.heard, whole.written)


@given(FRAMES, FRAMES)
def test_a_channel_is_independent_of_an_earlier_one(before: bytes, data: bytes) -> None:
    factory = ChannelFactory(Clock().seconds, 100, Clock())
    heard = []
    for each in (data, before, data):
        handler = Handler()
        made = factory.open(handler)
        made.dataReceived(each)
        made.send_close(1000)
        made.connectionLost()
        heard.append((handler.heard, handler.written))
    assert heard[0] == heard[2]


@given(st.binary(max_size=300))
def test_random_bytes_never_raise(data: bytes) -> None:
    made, handler = after_101(data)
    assert b"\x88" not in handler.written[:1]
    made.connectionLost()


def test_channels_share_no_object_that_can_change() -> None:
    factory = ChannelFactory(Clock().seconds, 100, Clock())
    one, other = (vars(factory.open(Handler())) for _ in range(2))
    constants = (type(None), bool, int, float, str, bytes, ChannelFactory)
    shared = {name for name in one if one[name] is other[name]}
    assert {name for name in shared if not isinstance(one[name], constants)} == set()
    assert one["trafficStats"] is not other["trafficStats"]


def test_no_option_is_copied_to_a_channel() -> None:
    made, _ = after_101(frame(9, b"x" * 100))
    assert not set(vars(made)) & {
        "failByDrop", "perMessageCompressionAccept", "flashSocketPolicy", "openHandshakeTimeout",
    }


class RecordingChannel(Channel):
    """Records which of the overridden methods Autobahn calls."""

    def connectionMade(self) -> None:
        self.called: list[str] = []
        super().connectionMade()

    def sendCloseFrame(self, *arguments: Any, **more: Any) -> None:
        self.called.append("sendCloseFrame")
        super().sendCloseFrame(*arguments, **more)

    def dropConnection(self, *arguments: Any, **more: Any) -> None:
        self.called.append("dropConnection")
        super().dropConnection(*arguments, **more)

    def _fail_connection(self, *arguments: Any) -> None:
        self.called.append("_fail_connection")
        super()._fail_connection(*arguments)


def recorded(data: bytes, close_first: bool = False) -> list[str]:
    """What Autobahn calls of a channel that receives `data`, behind our close frame or not."""
    factory = ChannelFactory(Clock().seconds, 10, Clock())
    factory.protocol = RecordingChannel
    made = factory.open(Handler())
    if close_first:
        made.send_close(1001)
    made.dataReceived(data)
    called: list[str] = made.called
    return called


@pytest.mark.parametrize("data", [frame(8), close_frame(1000), close_frame(4000, b"bye")])
def test_autobahn_answers_a_close_frame_by_send_close_frame(data: bytes) -> None:
    assert recorded(data)[0] == "sendCloseFrame"


@pytest.mark.parametrize("data", [frame(8), close_frame(1001)])
def test_autobahn_ends_the_close_handshake_by_drop_connection(data: bytes) -> None:
    assert recorded(data, close_first=True) == ["dropConnection"]


@pytest.mark.parametrize("name", VIOLATIONS)
@pytest.mark.parametrize("close_first", [False, True])
def test_autobahn_reports_a_violation_by_fail_connection(name: str, close_first: bool) -> None:
    assert recorded(VIOLATIONS[name][0], close_first) == ["_fail_connection"]
