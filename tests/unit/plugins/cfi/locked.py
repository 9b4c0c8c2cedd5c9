"""A kernel's memory, its maps and a derivation in the background, as far as locks need them."""

import struct
from collections.abc import Iterator
from typing import Any

from krie.kernel.maps import possible_cpus
from krie.plugins.cfi.declaration import shipped
from krie.plugins.cfi.derived import Derived
from krie.plugins.cfi.events import Lock
from krie.plugins.cfi.lock import Live
from krie.plugins.cfi.lock_file import LockedFunction, LockFile
from krie.plugins.cfi.maps import Count, Kernel, Place

BASE = 0xFFFFFFFF81000000
KALLSYMS = """\
ffffffff81000000 T _stext
ffffffff81000000 T do_setuid
ffffffff81000040 T commit_creds
ffffffff81000080 t security_task_prctl
ffffffff810000c0 t set_memory_ro
ffffffff81000100 T return_to_handler
ffffffff81000140 T twice
ffffffff81000180 T twice
ffffffff81001000 T _etext
ffffffff83000000 B _end
ffffffffc0000000 t helper\t[krie_test]
"""
POINTER_CALL = BASE + 0x82  # behind a call by a pointer, two bytes into security_task_prctl()
FILE = LockFile(
    release="6.1",
    build_id="00112233",
    functions={
        "commit_creds": LockedFunction(callers=["do_setuid+0x11"], taken=["cap_task_prctl"]),
        "prepare_kernel_cred": LockedFunction(callers=["twice+0x1"], taken=[]),
    },
)
FOUND = Derived({"commit_creds": [1, 2], "set_memory_ro": [0x33]}, ["set_memory_ro"], 3)


class Maps(dict[str, Any]):
    """Those that the plugin fills and reads, in the order in which it does."""

    def __init__(self) -> None:
        self.legal: list[tuple[int, int]] = []
        self.kernel: Kernel | None = None
        self.paths: dict[int, int] = {}
        self.counts = Count(0, 0, 0)
        super().__init__(cfi_legal=self, cfi_kernel=self, cfi_counts=self, cfi_paths=self)

    def set(self, key: bytes, value: bytes) -> None:
        if len(key) == len(value) == 4:
            assert not self.kernel, "the lock was on before all system calls were known"
            self.paths[struct.unpack("=I", key)[0]] = struct.unpack("=I", value)[0]
        elif len(key) == Place.size():
            place = Place.decode(key)
            on = self.kernel is not None and self.kernel.locked >> place.function & 1
            assert not on, "the lock was on before its callers were known"
            self.legal.append((place.return_address, place.function))
        else:
            self.kernel = Kernel.decode(value)

    @property
    def on(self) -> tuple[int, int]:
        """Which functions are locked, and which are certain."""
        assert self.kernel is not None
        return self.kernel.locked, self.kernel.certain

    def array(self) -> list[bytes]:
        size = Count.size() * possible_cpus()
        return [self.counts.encode().ljust(size, b"\0"), bytes(size)]


class Memory:
    """In which security_task_prctl() calls by a pointer."""

    def read(self, address: int, size: int) -> bytes:
        return (b"\xff\xd0" if address == POINTER_CALL - 2 else b"").ljust(size, b"\xcc")

    def pieces(self, address: int, size: int) -> Iterator[tuple[int, bytes]]:
        yield 0, self.read(address, size)


class Background:
    """Takes the place of a derivation."""

    last: "Background"

    def __init__(self, _memory: object, ranges: list[range], build_id: str, functions: list[str]) -> None:
        self.asked = (ranges, build_id, functions)
        self.found: Derived | Exception | None = None
        self.stopped = False
        Background.last = self

    def answer(self) -> Derived | None:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def stop(self) -> None:
        self.stopped = True


def told(watched: Live, found: Derived | Exception) -> Lock:
    """What it tells when this is found; and nothing before and after that."""
    assert list(watched.poll()) == []
    Background.last.found = found
    (event,) = watched.poll()
    assert list(watched.poll()) == []
    return event


def live(maps: Maps, file: LockFile | None = FILE) -> Live:
    return Live(maps, Memory(), shipped(), file, ["f"])  # type: ignore[arg-type]
