"""The kernel's memory as /proc/kcore shows it, which is another way than the agent's."""

import struct
from pathlib import Path

from krie.kernel.symbols import functions


def function_bytes(name: str) -> tuple[int, bytes]:
    """Where a function begins, and its bytes."""
    extent = functions({name})[name]
    return extent.start, read_memory(extent.start, len(extent))


def read_memory(address: int, size: int) -> bytes:
    """What lies there. Raises `OSError`."""
    with Path("/proc/kcore").open("rb") as core:
        header = core.read(64)
        offset, count = struct.unpack_from("=Q", header, 32)[0], struct.unpack_from("=H", header, 56)[0]
        core.seek(offset)
        for _ in range(count):
            _, _, file, start, _, length, *_ = struct.unpack("=IIQQQQQQ", core.read(56))
            if start <= address and address + size <= start + length:
                core.seek(file + address - start)
                return core.read(size)
    raise OSError(address)
