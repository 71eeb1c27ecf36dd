"""Items are written in order beside the one who puts them; errors reach that one."""

from __future__ import annotations

import threading

import pytest

from visavis.server.background_writer import BackgroundWriter


def test_all_is_written_in_order_when_the_block_ends() -> None:
    written: list[int] = []
    with BackgroundWriter(written.append, depth=3) as writer:
        for i in range(100):
            writer.put(i)
    assert written == list(range(100))


def test_writing_runs_beside_the_one_who_puts() -> None:
    may_write, written = threading.Event(), []

    def write(item: int) -> None:
        assert may_write.wait(10)
        written.append(item)

    with BackgroundWriter(write, depth=2) as writer:
        writer.put(1)
        writer.put(2)
        assert written == []  # put does not wait for the writing
        may_write.set()
    assert written == [1, 2]


def test_no_more_waits_than_the_depth() -> None:
    may_write, full = threading.Event(), threading.Event()

    def put_many(writer: BackgroundWriter[int]) -> None:
        for i in range(4):  # one is being written, two wait, the fourth has no place
            writer.put(i)
        full.set()

    def write(_: int) -> None:
        assert may_write.wait(10)

    with BackgroundWriter(write, depth=2) as writer:
        putter = threading.Thread(target=put_many, args=(writer,))
        putter.start()
        assert not full.wait(0.1)
        may_write.set()
        putter.join(10)
        assert full.is_set()


def test_an_error_of_the_writer_is_raised_and_nothing_after_it_is_written() -> None:
    written: list[int] = []

    def write(item: int) -> None:
        if item == 3:
            raise OSError("the disk is full")
        written.append(item)

    def put_all() -> None:
        with BackgroundWriter(write, depth=2) as writer:
            for i in range(100):
                writer.put(i)

    with pytest.raises(OSError, match="the disk is full"):
        put_all()
    assert written == [0, 1, 2]


def test_a_block_that_fails_drops_what_waits() -> None:
    may_write, written = threading.Event(), []

    def write(item: int) -> None:
        assert may_write.wait(10)
        written.append(item)

    def fail() -> None:
        with BackgroundWriter(write, depth=8) as writer:
            for i in range(4):
                writer.put(i)
            threading.Timer(0.05, may_write.set).start()
            raise KeyError("stopped")

    with pytest.raises(KeyError, match="stopped"):
        fail()
    assert len(written) <= 1  # the one under way
