"""The thread that writes the log: order, bounds, and what is said of lost lines."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from twisted.python.logfile import LogFile

from envelope.runtime import logsinks, logwriter
from envelope.runtime.logsinks import DescriptorSink, FileSink, SyslogSink
from envelope.runtime.logwriter import MOST_BYTES, MOST_LINES, LogWriter

PATIENCE = 20.0


class Reader:
    """A sink that blocks until it is told to go on, and fails when it is told to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.reopened_at: list[int] = []
        self.flows = threading.Event()
        self.writes = threading.Event()
        self.full = False

    def write(self, lines: Sequence[str]) -> None:
        self.writes.set()
        assert self.flows.wait(PATIENCE)
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.lines += lines

    def reopen(self) -> None:
        self.reopened_at.append(len(self.lines))


def say(level: Any, text: str) -> str:
    return f"{level.name}: {text}"


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def writer(reader: Reader) -> Iterator[LogWriter[str]]:
    writer = LogWriter(reader, say)
    writer.start()
    yield writer
    reader.flows.set()
    writer.close(PATIENCE)


def test_lines_are_written_in_order(reader: Reader, writer: LogWriter[str]) -> None:
    reader.flows.set()
    lines = [str(number) for number in range(1000)]
    for line in lines:
        writer.put(line, len(line))
    assert writer.close(PATIENCE)
    assert reader.lines == lines
    assert writer.dropped == 0


@pytest.mark.parametrize(("size", "fit"), [(1000, MOST_BYTES // 1000), (1, MOST_LINES)])
def test_a_stalled_reader_costs_lines_and_hears_how_many(
    reader: Reader, writer: LogWriter[str], size: int, fit: int
) -> None:
    """In bytes and in lines. What waited is all written, and one line stands for the rest."""
    for number in range(fit + 500):
        writer.put(str(number), size)
    assert writer.dropped == 500
    reader.flows.set()
    # What comes before all that waited is written is lost as well, or a gap would not be one.
    while writer.dropped and len(reader.lines) <= fit:
        pass
    dropped = writer.dropped
    writer.put("again", 5)
    assert writer.close(PATIENCE)
    assert reader.lines == [
        *map(str, range(fit)), f"warn: lost {dropped} lines of the log, which could not be written",
        "again",
    ]


def test_lines_that_a_full_disk_refuses_are_counted(
    reader: Reader, writer: LogWriter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again until there is room."""
    monkeypatch.setattr(logwriter, "RETRY_AFTER", 0.01)
    reader.full = True
    reader.flows.set()
    writer.put("lost", 4)
    while not writer.dropped:
        pass
    reader.full = False
    while not reader.lines:
        pass
    writer.put("kept", 4)
    assert writer.close(PATIENCE)
    assert reader.lines == [
        "warn: lost 1 lines of the log, which could not be written", "kept"]


def test_the_end_waits_no_longer_than_it_is_told(reader: Reader) -> None:
    writer = LogWriter(reader, say)
    writer.start()
    writer.put("late", 4)
    assert not writer.close(0.05)
    reader.flows.set()


def test_what_waits_without_a_thread_is_written_at_the_end(reader: Reader) -> None:
    """A start may end before the thread is started."""
    writer = LogWriter(reader, say)
    reader.flows.set()
    writer.put("why", 3)
    assert writer.close(0)
    assert reader.lines == ["why"]


def test_a_file_is_opened_again_between_the_lines(reader: Reader, writer: LogWriter[str]) -> None:
    writer.put("old", 3)
    writer.reopen()
    writer.put("new", 3)
    reader.flows.set()
    assert writer.close(PATIENCE)
    assert reader.reopened_at == [1]
    assert reader.lines == ["old", "info: opened the log file again", "new"]


def test_a_file_that_cannot_be_opened_again_is_kept(tmp_path: Any) -> None:
    """The folder is gone; the moved file goes on."""
    (tmp_path / "folder").mkdir()
    file = LogFile("log", str(tmp_path / "folder"))
    writer = LogWriter(FileSink(file), lambda level, text: f"{text}\n")
    (tmp_path / "folder").rename(tmp_path / "moved")
    writer.reopen()
    writer.put("on\n", 3)
    assert writer.close(0)
    assert (tmp_path / "moved" / "log").read_text() == (
        "the log cannot be opened again: No such file or directory\non\n")
    file.close()


def test_syslog_gets_any_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zero byte, and half a character of a path, would be errors of Python's."""
    said: list[str] = []
    monkeypatch.setattr(logsinks.syslog, "syslog", lambda _, line: said.append(line))
    SyslogSink().write([(6, "a\0b"), (6, "/tmp/\udcff")])
    assert said == ["a?b", "/tmp/?"]


def test_a_file_that_cannot_be_rotated_goes_on(tmp_path: Any) -> None:
    """Its name is too long for another ending, so that it is closed and not renamed."""
    name = "x" * 255
    file = LogFile(name, str(tmp_path), rotateLength=10)
    sink = FileSink(file)
    lines = [f"line {number}\n" for number in range(9)]
    for line in lines:
        sink.write([line])
    assert (tmp_path / name).read_text() == "".join(lines)
    file.close()


def test_a_file_that_could_not_be_opened_after_a_rotation_is_opened_later(tmp_path: Any) -> None:
    """At the next write, which makes it anew."""
    file = LogFile("log", str(tmp_path), rotateLength=10)
    sink = FileSink(file)
    sink.write(["before it\n"])
    (tmp_path / "log").rename(tmp_path / "log.1")
    file._file.close()
    sink.write(["later\n"])
    assert [(tmp_path / each).read_text() for each in ("log.1", "log")] == [
        "before it\n", "later\n"]
    file.close()


def test_a_descriptor_that_does_not_block_loses_nothing() -> None:
    """As some parents hand it on."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    text = "x" * (1 << 20)
    thread = threading.Thread(target=DescriptorSink(writing).write, args=([text],))
    thread.start()
    got = 0
    while got < len(text):
        got += len(os.read(reading, 1 << 16))
    thread.join(PATIENCE)
    for end in (reading, writing):
        os.close(end)
