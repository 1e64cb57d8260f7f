"""Requests to the kernel, and the sockets that they are made over."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from envelope.netlink import (
    NETLINK_ROUTE,
    Netlink,
    attribute,
    attributes,
    nested,
)

LINKS, ADDRESSES, ROUTE = 18, 22, 26


def descriptors() -> int:
    """How many sockets this process has."""
    return sum(os.readlink(each).startswith("socket:") for each in Path("/proc/self/fd").iterdir()
               if each.exists() or each.is_symlink())


def test_questions_may_cross_and_their_sockets_are_used_again() -> None:
    """A list that is read while another question is asked loses nothing."""
    kernel, before = Netlink(NETLINK_ROUTE), descriptors()
    links = [*kernel.dump(LINKS, bytes(16))]
    assert links
    crossed = []
    for link in kernel.dump(LINKS, bytes(16)):
        crossed.append(link)
        assert [*kernel.dump(ADDRESSES, bytes(8))]
    assert len(crossed) == len(links)
    assert descriptors() <= before + 2
    kernel.close()
    assert descriptors() == before


def test_a_socket_that_is_opened_first_is_the_one_that_is_kept() -> None:
    """So that a service has all descriptors from its start."""
    kernel, before = Netlink(NETLINK_ROUTE), descriptors()
    for _ in range(2):
        kernel.open()
        assert [*kernel.dump(LINKS, bytes(16))]
        assert descriptors() == before + 1
    kernel.close()


def test_a_refusal_is_an_error_and_the_socket_goes_on() -> None:
    """The kernel says why."""
    kernel = Netlink(NETLINK_ROUTE)
    for _ in range(2):
        with pytest.raises(OSError, match=r"unreachable|No such device") as caught:
            kernel.ask(ROUTE, bytes((socket.AF_INET, 32)).ljust(12, b"\0")
                       + attribute(4, struct.pack("=I", 999999)))
        assert caught.value.errno in (errno.ENETUNREACH, errno.ENODEV)
    assert [*kernel.dump(LINKS, bytes(16))]
    kernel.close()


def test_a_list_that_is_given_up_takes_its_socket_along() -> None:
    """So does closing, in the middle of one."""
    before = descriptors()
    for given_up in (True, False):
        kernel = Netlink(NETLINK_ROUTE)
        reading = kernel.dump(LINKS, bytes(16))
        next(reading)
        if given_up:
            reading.close()  # type: ignore[attr-defined]
        kernel.close()
        assert descriptors() == before


def test_nothing_is_opened_once_closed() -> None:
    """Neither by another question, nor by a list that nobody had begun to read."""
    kernel, before = Netlink(NETLINK_ROUTE), descriptors()
    listed = kernel.dump(LINKS, bytes(16))
    kernel.close()
    for ask in (lambda: [*listed], lambda: kernel.ask(LINKS, bytes(16))):
        with pytest.raises(OSError, match="Bad file descriptor"):
            ask()
    assert descriptors() == before


def test_attributes_are_read_as_they_are_written() -> None:
    """Aligned, nested, and cut short."""
    inner = nested(5, attribute(1, b"abc"), attribute(2, b""))
    message = b"head" + attribute(3, b"x") + inner
    found = attributes(message, 4)
    assert found == {3: b"x", 5: inner[4:]}
    assert attributes(found[5]) == {1: b"abc", 2: b""}
    assert attributes(b"") == attributes(b"\1\0") == {}
    assert attributes(struct.pack("=HH", 0, 7)) == {7: b""}
