"""The ring buffer: records out of the kernel, as bytes, in order.

Read through libbpf. Its callback only copies: exceptions in it would be lost, and what it
is given lies in the ring.
"""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Callable
from typing import Any, Protocol, cast

from ..errors import KernelError
from ..events.event import Event
from ..events.layout import layout_of
from .maps import Map

_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_BATCH_FULL = -1000
_SMALLEST_BYTES = layout_of(Event).size


class Library(Protocol):
    """What of libbpf is used."""

    def ring_buffer__new(self, descriptor: int, callback: Any, context: None, options: None, /) -> int | None:
        """Map a ring; None where that failed."""

    def ring_buffer__consume(self, handle: Any, /) -> int:
        """Call back for each record that is there; a negative answer of the callback ends that, and is returned."""

    def ring_buffer__free(self, handle: Any, /) -> None:
        """Unmap it."""


def _library() -> Library:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise KernelError("loading libbpf.so.1", 0, f"install the package libbpf1 ({error})") from error
    library.ring_buffer__new.restype = ctypes.c_void_p
    library.ring_buffer__new.argtypes = [ctypes.c_int, _CALLBACK, ctypes.c_void_p, ctypes.c_void_p]
    library.ring_buffer__free.argtypes = [ctypes.c_void_p]
    library.ring_buffer__consume.argtypes = [ctypes.c_void_p]
    return cast("Library", library)


class Ring:
    """The consumer's side. One thread may read it."""

    def __init__(self, ring: Map, batch: int = 256, library: Callable[[], Library] = _library) -> None:
        """Map the ring. `batch`: most records that one `read` returns. Raises `KernelError`."""
        self._lib = library()
        records: list[bytes] = []
        copy, keep = ctypes.string_at, records.append

        def on_record(_context: int, data: int, size: int) -> int:
            keep(copy(data, size))
            # libbpf has consumed the record when it looks at this: a negative answer ends the batch, and loses nothing.
            return _BATCH_FULL if len(records) >= batch else 0

        self._records, self._on_record = records, _CALLBACK(on_record)
        handle = self._lib.ring_buffer__new(ring.descriptor, self._on_record, None, None)
        if not handle:
            raise KernelError("mapping the ring buffer", ctypes.get_errno())
        self._handle = ctypes.c_void_p(handle)
        self._descriptor = ring.descriptor
        self.batch = batch
        self.most_batches = ring.entries // (_SMALLEST_BYTES * batch) + 1
        """Batches that a full ring can hold."""

    def read(self) -> list[bytes]:
        """The records that are there, at most one batch; fewer when the ring was read to its end."""
        result = self._lib.ring_buffer__consume(self._handle)
        if result < 0 and result != _BATCH_FULL:
            raise KernelError("reading the ring buffer", -result)
        records = self._records[:]
        self._records.clear()
        return records

    def wait_on(self, poll: select.epoll) -> None:
        """Let `poll` tell when there are records."""
        poll.register(self._descriptor, select.EPOLLIN)

    def close(self) -> None:
        """Unmap the ring; the map's descriptor stays open."""
        self._lib.ring_buffer__free(self._handle)


def ring_pages(mib: int) -> int:
    """Pages of a ring of so many MiB."""
    return (mib << 20) // os.sysconf("SC_PAGESIZE")
