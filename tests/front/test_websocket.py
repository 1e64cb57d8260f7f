"""Frames, and what they mean; the channel alone, with a listener that only writes down."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from envelope.front.websocket import Channel, ChannelFactory, IListener
from tests.support.frontfakes import close_frame, frame


@implementer(IListener)
class Listener:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def data_begun(self) -> None:
        self.heard.append("data")

    def close_asked(self) -> None:
        self.heard.append("close")

    def close_answered(self) -> None:
        self.heard.append("answered")

    def broken(self, code: int) -> None:
        self.heard.append(code)


def channel(
    clock: Clock | None = None, frames_per_second: int = 10
) -> tuple[Channel, Listener]:
    clock = clock or Clock()
    listener = Listener()
    return ChannelFactory(clock.seconds, frames_per_second, clock).make(listener), listener


def after_101(*pieces: bytes) -> tuple[Channel, Listener]:
    made, listener = channel()
    for piece in pieces:
        made.dataReceived(piece)
    return made, listener


def test_the_listener_of_these_tests_is_one() -> None:
    assert verifyObject(IListener, Listener())


def test_it_is_silent_and_sets_no_timer() -> None:
    clock = Clock()
    made, listener = channel(clock)
    clock.advance(3600)
    assert not clock.getDelayedCalls()
    made.connectionLost()
    assert listener.written == b""
    assert listener.heard == []


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 125])
def test_a_ping_is_answered_with_what_it_carried(payload: bytes) -> None:
    _, listener = after_101(frame(9, payload))
    assert listener.written == bytes([0x8A, len(payload)]) + payload


def test_an_unasked_pong_is_ignored() -> None:
    _, listener = after_101(frame(10, b"x"), frame(10))
    assert (listener.heard, listener.written) == ([], b"")


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
def test_data_is_heard_of_as_soon_as_its_head_is_in(data: bytes) -> None:
    made, listener = after_101(data)
    assert listener.heard == ["data"]
    assert listener.written == b""
    assert not made.data


def test_each_frame_of_data_is_heard_of_and_none_is_kept() -> None:
    made, listener = after_101(
        frame(1, b"a" * 300, fin=False), frame(9, b"p"), frame(0, b"b" * 300), frame(2, b"c" * 300)
    )
    assert listener.heard == ["data", "data", "data"]
    assert listener.written == b"\x8a\x01p"
    assert "a" * 8 not in repr(vars(made))
    assert "c" * 8 not in repr(vars(made))


def test_a_close_frame_is_not_answered_until_finish() -> None:
    made, listener = after_101(close_frame(1000, b"bye"))
    assert listener.heard == ["close"]
    assert listener.written == b""
    assert made.deaf
    assert made.finish(1000)
    assert listener.written == b"\x88\x02\x03\xe8"
    assert not made.finish(1000)


def test_nothing_behind_a_close_frame_is_heard() -> None:
    made, listener = after_101(frame(8) + frame(1, b"x"), frame(9), b"\xff" * 50)
    assert listener.heard == ["close"]
    assert listener.written == b""
    assert not made.data


def test_the_answer_to_our_close_frame_is_heard() -> None:
    made, listener = channel()
    assert made.finish(4000, "deadline")
    assert listener.written.endswith(b"\x88\x0a\x0f\xa0deadline")
    made.dataReceived(frame(1, b"crossing") + close_frame(4000))
    made.dataReceived(frame(8))
    assert listener.heard == ["data", "answered"]


def test_pings_behind_our_close_frame_are_not_answered() -> None:
    made, listener = channel()
    made.finish(1001, "stopping")
    before = listener.written
    made.dataReceived(frame(9, b"x"))
    assert listener.written == before


BROKEN = {
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


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rules_are_told_and_nothing_behind_them_is_read(name: str) -> None:
    data, code = BROKEN[name]
    made, listener = after_101(data + frame(9) + frame(8), frame(1, b"x"))
    assert listener.heard == [code]
    assert listener.written == b""
    assert not made.data
    assert made.finish(code)
    assert listener.written == b"\x88\x02" + struct.pack("!H", code)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rules_are_told_however_the_bytes_are_cut(name: str) -> None:
    data, code = BROKEN[name]
    _, listener = after_101(*(data[i : i + 1] for i in range(len(data))))
    assert listener.heard == [code]


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1013, 3000, 4000, 4999])
def test_close_codes_that_are_fine(code: int) -> None:
    _, listener = after_101(close_frame(code, "au revoir \u00e9".encode()))
    assert listener.heard == ["close"]


@pytest.mark.parametrize("data", [frame(8), frame(8, mask=b"\0\0\0\0")])
def test_a_close_frame_needs_no_code(data: bytes) -> None:
    assert after_101(data)[1].heard == ["close"]


def test_a_frame_that_breaks_a_message_open_is_broken() -> None:
    assert after_101(frame(1, b"x", fin=False), frame(1, b"y"))[1].heard == ["data", 1002]


@pytest.mark.parametrize("opcode", [9, 10, 2])
def test_a_flood_of_frames_is_broken_off(opcode: int) -> None:
    clock = Clock()
    made, listener = channel(clock, frames_per_second=10)
    listener.written = b""
    made.dataReceived(frame(opcode) * 1000)
    assert listener.heard[-1] == 1008
    assert listener.heard.count(1008) == 1
    assert listener.written.count(b"\x8a\x00") <= 10
    made.dataReceived(frame(opcode) * 1000)
    assert listener.heard[-1] == 1008
    assert listener.heard.count(1008) == 1


def test_slow_pings_go_on_for_ever() -> None:
    clock = Clock()
    made, listener = channel(clock, frames_per_second=10)
    for _ in range(100):
        made.dataReceived(frame(9) * 10)
        clock.advance(1)
    assert listener.heard == []
    assert listener.written.count(b"\x8a\x00") == 1000


FRAMES = st.lists(
    st.one_of(
        st.builds(frame, st.integers(0, 15), st.binary(max_size=130), st.booleans()),
        st.builds(close_frame, st.integers(0, 65535), st.binary(max_size=4)),
        st.binary(max_size=8),
    ),
    max_size=8,
).map(b"".join)


@given(FRAMES, st.lists(st.integers(0, 1200), max_size=10))
def test_what_is_heard_does_not_depend_on_the_cuts(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    whole = after_101(data)[1]
    cut = after_101(*(data[a:b] for a, b in pairwise(edges)))[1]
    assert (cut.heard, cut.written) == (whole.heard, whole.written)


@given(FRAMES, FRAMES)
def test_a_channel_has_nothing_of_what_another_one_went_through(before: bytes, data: bytes) -> None:
    factory = ChannelFactory(Clock().seconds, 100, Clock())
    heard = []
    for each in (data, before, data):
        listener = Listener()
        made = factory.make(listener)
        made.dataReceived(each)
        made.finish(1000)
        made.connectionLost()
        heard.append((listener.heard, listener.written))
    assert heard[0] == heard[2]


@given(st.binary(max_size=300))
def test_random_bytes_never_raise(data: bytes) -> None:
    made, listener = after_101(data)
    assert b"\x88" not in listener.written[:1]
    made.connectionLost()


def test_a_held_channel_is_small() -> None:
    """No option is copied to the instance, no buffer and no handshake is kept."""
    made, _ = after_101(frame(9, b"x" * 100))
    assert not set(vars(made)) & {
        "failByDrop", "perMessageCompressionAccept", "flashSocketPolicy", "send_queue", "_wskey",
        "http_response_data", "utf8validator", "_transport_details",
    }
