"""Files that do not fit yet are read again until they do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from jwcrypto import jwk
from prometheus_client import CollectorRegistry
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, Logger, formatEvent, globalLogPublisher

from envelope.config import Config
from envelope.config.subjects import Subject as Wanted
from envelope.credentials.current import Credentials
from envelope.credentials.pemfiles import TLSFileError
from envelope.credentials.reload import LATER, SOON, Reload
from envelope.credentials.tls import ServerTLS
from tests.end_to_end.credentialfiles import MACHINE, SUBJECT
from tests.support.certificates import Authority

URL = "https://192.0.2.1/jwks"


class Subject:
    """Credentials with files of every kind, in the folder that `data` points to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "..data").symlink_to(self.make("one", 30))
        for name in ("leaf.pem", "leaf.key", "own.pub", "authority.pem"):
            (folder / name).symlink_to(Path("..data", name))
        self.reactor = MemoryReactorClock()
        self.credentials = Credentials(
            Config(
                machine=MACHINE, subject=(Wanted(SUBJECT),),
                cert=folder / "leaf.pem", key=folder / "leaf.key",
                verify_key=(folder / "own.pub",), verify_jwks_url=URL,
                jwks_ca=folder / "authority.pem",
            ),
            self.reactor, CollectorRegistry(),
        )
        self.credentials.start()
        self.said: list[str] = []

    def make(self, name: str, ends: float) -> Path:
        """A folder with new files, whose certificate ends in so many days."""
        made = self.folder / name
        made.mkdir()
        Authority(made).issue("a.example", ends=ends)
        key = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid=name)
        (made / "own.pub").write_text(key.export_public())
        return made

    def hear(self, event: LogEvent) -> None:
        self.said.append(formatEvent(event))

    @property
    def days(self) -> int:
        tls: ServerTLS | None = self.credentials.tls
        assert tls is not None
        return (tls.validity.not_after - datetime.now(UTC)).days

    @property
    def kids(self) -> list[str]:
        return list(self.credentials._ring)

    def lines(self, *words: str) -> list[str]:
        return [line for line in self.said if any(word in line for word in words)]


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    subject = Subject(tmp_path)
    globalLogPublisher.addObserver(subject.hear)
    yield subject
    globalLogPublisher.removeObserver(subject.hear)
    subject.credentials.stop()
    assert subject.reactor.getDelayedCalls() == []


def copy(name: str) -> Callable[[Path, Path], None]:
    def step(new: Path, used: Path) -> None:
        shutil.copy(new / name, used / name)
    return step


def half(name: str) -> Callable[[Path, Path], None]:
    def step(new: Path, used: Path) -> None:
        text = (new / name).read_bytes()
        (used / name).write_bytes(text[:len(text) // 2])
    return step


def empty(name: str) -> Callable[[Path, Path], None]:
    return lambda _, used: (used / name).write_bytes(b"") and None


def gone(name: str) -> Callable[[Path, Path], None]:
    return lambda _, used: (used / name).unlink()


def other_kind(name: str, make: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    def step(_: Path, used: Path) -> None:
        (used / name).unlink()
        make(used / name)
    return step


def exchange(new: Path, used: Path) -> None:
    """As Kubernetes replaces a secret: the link `..data` gets another folder, all at once."""
    fresh = used.parent / "..data_tmp"
    fresh.symlink_to(new)
    fresh.replace(used.parent / "..data")


BOTH = (copy("leaf.pem"), copy("leaf.key"))
# What SIGHUP finds, what comes later, and what the files are called in the log.
EXCHANGES = {
    "the certificate first": (copy("leaf.pem"), BOTH, "certificate"),
    "the key first": (copy("leaf.key"), BOTH, "certificate"),
    "half a certificate": (half("leaf.pem"), BOTH, "certificate"),
    "half a key": (half("leaf.key"), BOTH, "certificate"),
    "an empty key": (empty("leaf.key"), BOTH, "certificate"),
    "no certificate": (gone("leaf.pem"), BOTH, "certificate"),
    "a pair that another one replaces": (copy("leaf.pem"), (exchange,), "certificate"),
    "a key that is a pipe": (other_kind("leaf.key", os.mkfifo), (exchange,), "certificate"),
    "a folder": (other_kind("leaf.pem", Path.mkdir), (exchange,), "certificate"),
    "a JWK that is a pipe": (other_kind("own.pub", os.mkfifo), (exchange,), "keys"),
    "authorities from a pipe": (
        other_kind("authority.pem", os.mkfifo), (exchange,), "authorities"),
    "half a JWK that another folder's replaces": (half("own.pub"), (exchange,), "keys"),
    "half a JWK": (half("own.pub"), (copy("own.pub"),), "keys"),
    "no JWK": (gone("own.pub"), (copy("own.pub"),), "keys"),
    "half an authority": (half("authority.pem"), (copy("authority.pem"),), "authorities"),
}


@pytest.mark.parametrize("name", EXCHANGES)
@pytest.mark.parametrize("after", [1, 20, 500])
def test_an_exchange_that_sighup_falls_into_is_seen_through(
    subject: Subject, name: str, after: int
) -> None:
    """However long it takes, the old stays in use; it is said once, and so is the success."""
    first, then, what = EXCHANGES[name]
    new, used = subject.make("two", 60), subject.folder / "one"
    first(new, used)
    opened = len(os.listdir("/proc/self/fd"))
    subject.credentials.reload()
    if what == "keys":
        assert subject.kids == ["one"]
    for _ in range(after):
        subject.reactor.advance(1)
    assert len(os.listdir("/proc/self/fd")) == opened
    assert subject.days in (29, 30)
    assert len(subject.lines("kept the old")) == 1
    (warning,) = [line for line in subject.credentials.warnings() if "still in use" in line]
    assert warning.startswith(f"the old {what} still in use: {used.parent}")
    (said,) = subject.lines("kept the old")
    assert said.startswith(f"kept the old {what}: {used.parent}")
    before = len(subject.lines(f"read the {what} again"))
    for step in then:
        step(new, used)
    for _ in range(11 if after > 30 else 1):
        subject.reactor.advance(1)
    assert len(subject.lines(f"read the {what} again")) == before + 1
    assert not [line for line in subject.credentials.warnings() if "still in use" in line]
    assert len(subject.lines("kept the old")) == 1
    if what == "certificate":
        assert subject.days in (59, 60)
    if what == "keys":
        assert subject.kids == ["two"]
    for _ in range(60):
        subject.reactor.advance(1)
    assert len(subject.lines(f"read the {what} again")) == before + 1


class Pair:
    """Two files that fit when they have the same content, and who reads them how often."""

    def __init__(self, folder: Path) -> None:
        self.paths = folder / "one", folder / "two"
        self.clock = MemoryReactorClock()
        self.reads = 0
        self.used = ""
        self.between: Callable[[], object] = int
        self.write("a", "a")
        self.followed = self.failed = 0
        self.reload = Reload(
            self.clock, "pair", self.paths, self.read, self.follow, self.fail, Logger()
        )

    def follow(self) -> None:
        self.followed += 1

    def fail(self) -> None:
        self.failed += 1

    def write(self, *contents: str) -> None:
        for path, content in zip(self.paths, contents, strict=True):
            path.write_text(content)

    def read(self) -> None:
        self.reads += 1
        one = self.paths[0].read_text()
        self.between()
        if one != self.paths[1].read_text():
            raise TLSFileError("no pair")
        self.used = one

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)


def test_an_error_of_another_kind_ends_nothing(tmp_path: Path) -> None:
    """What is written later is read."""
    def break_once() -> None:
        pair.between = int
        raise RuntimeError("of no kind that is known")

    pair = Pair(tmp_path)
    pair.reload.start()
    pair.between = break_once
    pair.write("b", "b")
    with pytest.raises(RuntimeError):
        pair.wait(int(LATER))
    pair.write("c", "c")
    pair.wait(int(LATER))
    assert pair.used == "c"


def test_an_exchange_between_two_reads_is_seen_through(tmp_path: Path) -> None:
    """Kubernetes: one file of the old folder was read, and one of the new."""
    pair = Pair(tmp_path)
    pair.between = lambda: pair.write("b", "b")
    pair.reload.now()
    assert pair.reload.warnings() == ["the old pair still in use: no pair"]
    pair.clock.advance(SOON)
    assert (pair.used, pair.reads, pair.reload.warnings()) == ("b", 2, [])
    assert pair.clock.getDelayedCalls() == []
    assert (pair.followed, pair.failed) == (2, 1)


def test_the_same_content_is_not_read_into_keys_again(tmp_path: Path) -> None:
    """That takes long for a large RSA key; comparing files is cheap."""
    pair = Pair(tmp_path)
    pair.write("b", "a")
    pair.reload.now()
    pair.wait(1000)
    assert pair.reads == 1
    pair.write("c", "a")
    pair.wait(int(LATER))
    assert pair.reads == 2
    pair.write("c", "c")
    pair.clock.advance(SOON)
    assert (pair.used, pair.reads) == ("c", 3)


def test_old_content_that_is_put_back_ends_the_trouble(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.write("b", "a")
    pair.reload.now()
    pair.write("a", "a")
    pair.clock.advance(SOON)
    assert (pair.used, pair.reload.warnings()) == ("a", [])


def test_a_change_is_found_without_a_signal(tmp_path: Path) -> None:
    """Within ten seconds; and as long as nothing changes, nothing is read."""
    pair = Pair(tmp_path)
    pair.reload.start()
    pair.wait(100)
    assert pair.reads == 0
    pair.write("b", "b")
    pair.wait(int(LATER))
    assert (pair.used, pair.reads, pair.followed, pair.failed) == ("b", 1, 1, 0)
    pair.wait(100)
    assert pair.reads == 1
    pair.reload.stop()
    assert pair.clock.getDelayedCalls() == []


def test_an_exchange_that_takes_a_moment_is_no_failure(tmp_path: Path) -> None:
    """Without a signal; it is one when it takes more than some seconds, and is counted once."""
    for takes, failures in ((2, 0), (3, 1), (200, 1)):
        pair = Pair(tmp_path)
        pair.reload.start()
        pair.write("b", "a")
        pair.wait(int(LATER) + takes)
        assert pair.reload.warnings()
        pair.write("b", "b")
        pair.wait(int(LATER))
        assert (pair.used, pair.failed, pair.reload.warnings()) == ("b", failures, [])
        pair.reload.stop()


def test_what_comes_just_after_a_signal_is_found(subject: Subject) -> None:
    """A signal may announce an exchange that has not happened yet."""
    subject.credentials.reload()
    exchange(subject.make("two", 60), subject.folder / "one")
    for _ in range(int(LATER)):
        subject.reactor.advance(1)
    assert subject.days in (59, 60)
    assert subject.kids == ["two"]
    assert not subject.lines("kept the old")


def test_another_sighup_tries_at_once_and_says_it_again(subject: Subject) -> None:
    new, used = subject.make("two", 60), subject.folder / "one"
    copy("leaf.pem")(new, used)
    subject.credentials.reload()
    for _ in range(100):
        subject.reactor.advance(1)
    subject.credentials.reload()
    assert len(subject.lines("kept the old certificate")) == 2
    copy("leaf.key")(new, used)
    subject.credentials.reload()
    assert subject.days in (59, 60)
    subject.reactor.advance(100)
    assert len(subject.lines("read the certificate again")) == 1
