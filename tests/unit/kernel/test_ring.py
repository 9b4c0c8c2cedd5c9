"""Batches out of a ring buffer, by a library that has one in memory."""

import ctypes
import os
import select
from collections import deque
from typing import Any

import pytest
from krie import KernelError
from krie.kernel.ring import Ring, ring_pages
from krie.testing.fakes import FakeMap


class Memory:
    """libbcc_bpf as far as a ring needs it: it goes on until the callback says otherwise."""

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.error = 0
        self.freed: list[int | None] = []
        self.handle: int | None = 4711

    def ring_buffer__new(self, descriptor: int, callback: Any, context: None, options: None, /) -> int | None:
        self._callback = callback
        return self.handle

    def ring_buffer__consume(self, handle: Any, /) -> int:
        assert handle.value == self.handle
        taken = 0
        while self.waiting and not self.error:
            record = self.waiting.popleft()
            buffer = ctypes.create_string_buffer(record, len(record))
            answer = int(self._callback(None, ctypes.addressof(buffer), len(record)))
            ctypes.memset(buffer, 0xEE, len(record))  # its place in the ring is another record's from now on
            if answer < 0:
                return answer
            taken += 1
        return -self.error or taken

    def ring_buffer__free(self, handle: Any, /) -> None:
        self.freed.append(handle.value)


def ring(memory: Memory, batch: int = 3, descriptor: int = -1) -> Ring:
    return Ring(FakeMap("krie_ring", descriptor, entries=1 << 20), batch, lambda: memory)


def test_records_come_in_order_and_each_once() -> None:
    memory = Memory()
    made = ring(memory)
    assert made.read() == []
    memory.waiting += [b"a", b"b\0c"]
    assert made.read() == [b"a", b"b\0c"]
    assert made.read() == []


def test_a_full_batch_is_no_error_and_loses_nothing() -> None:
    memory = Memory()
    made = ring(memory)
    records = [bytes([number]) * (number + 1) for number in range(8)]
    memory.waiting += records
    batches = [made.read() for _ in range(4)]
    assert [len(each) for each in batches] == [3, 3, 2, 0]
    assert [record for batch in batches for record in batch] == records


def test_what_cannot_be_read_is_said() -> None:
    memory = Memory()
    made = ring(memory)
    memory.error = 5
    with pytest.raises(KernelError, match="reading the ring buffer: EIO"):
        made.read()


def test_a_ring_that_cannot_be_mapped_is_said() -> None:
    memory = Memory()
    memory.handle = None
    with pytest.raises(KernelError, match="mapping the ring buffer"):
        ring(memory)


def test_a_full_ring_is_read_in_so_many_batches() -> None:
    made = ring(Memory(), batch=256)
    smallest = 200  # bytes of a header, and more
    assert made.batch * made.most_batches * smallest >= 1 << 20
    assert made.most_batches < 64


def test_it_wakes_whoever_waits_and_is_unmapped_once() -> None:
    memory = Memory()
    wait, tell = os.pipe()
    poll = select.epoll()
    try:
        made = ring(memory, descriptor=wait)
        made.wait_on(poll)
        assert poll.poll(0) == []
        os.write(tell, b"x")
        assert poll.poll(0) == [(wait, select.EPOLLIN)]
        made.close()
        assert memory.freed == [4711]
    finally:
        poll.close()
        os.close(wait)
        os.close(tell)


def test_pages_of_a_ring() -> None:
    assert ring_pages(8) * os.sysconf("SC_PAGESIZE") == 8 << 20
