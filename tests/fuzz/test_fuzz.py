"""The fuzz targets on their corpus, and on bytes that hypothesis generates; no fuzzer is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.credentials.keys import KeyRing
from tests.fuzz import frame as frame_path
from tests.fuzz import frontchecks
from tests.fuzz import request as request_path
from tests.fuzz import token as token_path
from tests.support.frontfakes import HELLO, close_frame, frame

CORPUS = Path(__file__).with_name("corpus")
TARGETS: dict[str, Callable[[bytes], None]] = {
    "token": token_path.one, "request": request_path.one, "frame": frame_path.one,
}
SEEDS = sorted(path.relative_to(CORPUS) for path in CORPUS.glob("*/*"))


@pytest.mark.parametrize("seed", SEEDS, ids=str)
def test_every_input_of_the_corpus_passes(seed: Path) -> None:
    """The corpus has every input that ever failed or reached new code."""
    TARGETS[seed.parent.name]((CORPUS / seed).read_bytes())


@pytest.mark.parametrize("path", TARGETS)
def test_every_target_has_a_corpus(path: str) -> None:
    assert sum(seed.parent.name == path for seed in SEEDS) >= 20


def cut_and_pasted(path: str) -> st.SearchStrategy[bytes]:
    """Parts of the corpus, joined with other bytes between them."""
    seeds = [(CORPUS / seed).read_bytes() for seed in SEEDS if seed.parent.name == path]
    part = st.tuples(st.sampled_from(seeds), st.integers(0, 200), st.integers(0, 200)).map(
        lambda choice: choice[0][choice[1] : choice[1] + choice[2]])
    return st.lists(part | st.binary(max_size=9), max_size=4).map(b"".join)


# One test each: pytest-twisted 1.14.3 cannot run a test with both parameters and @given.

@given(st.binary(max_size=300) | cut_and_pasted("token"))
def test_any_bytes_for_a_token(data: bytes) -> None:
    token_path.one(data)


@given(st.binary(max_size=300) | cut_and_pasted("request"))
def test_any_bytes_for_a_request(data: bytes) -> None:
    request_path.one(data)


@given(st.binary(max_size=300) | cut_and_pasted("frame"))
def test_any_bytes_for_frames(data: bytes) -> None:
    frame_path.one(data)


@given(st.integers(0, 30), st.lists(
    st.builds(frame, st.sampled_from([9, 10]), st.binary(max_size=125)), max_size=120),
    st.just(b"") | st.builds(close_frame, st.integers(0, 65535), st.binary(max_size=9))
    | st.builds(frame, st.integers(0, 15), st.binary(max_size=140), st.booleans(),
                st.integers(0, 7)))
def test_pings_and_then_any_last_frame(size: int, pings: list[bytes], last: bytes) -> None:
    """As many pings as a session takes in a second, and more; then a last frame of any kind."""
    frame_path.one(bytes([size]) + b"".join(pings) + last)


# -- the targets can fail ---------------------------------------------------------------------

def test_the_token_target_notices_a_missing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_path, "RING", KeyRing())
    with pytest.raises(AssertionError):
        token_path.one((CORPUS / "token/payload").read_bytes())


def test_the_targets_of_the_front_notice_too_much_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontchecks, "FEW", 0)
    monkeypatch.setattr(frontchecks, "EACH", 0)
    with pytest.raises(AssertionError, match="calls for"):
        request_path.one(b"\0" + HELLO)
    with pytest.raises(AssertionError, match="calls for"):
        frame_path.one(b"\0" + frame(9))


def test_the_frame_target_notices_a_ping_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_path, "_FRAMES_A_SECOND", 200)
    with pytest.raises(AssertionError):
        frame_path.one(b"\0" + frame(9) * 150)
