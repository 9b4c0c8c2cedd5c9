"""Maps by descriptor: what the agent and plugins read and write of what was loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from ..errors import KernelError
from ..events.numbers import WORD
from ..kernel_files import KernelFile
from . import bpf


@cache
def possible_cpus() -> int:
    """Number of values in an element of a per-CPU map, which is the same for as long as the machine runs."""
    text = KernelFile("/sys/devices/system/cpu/possible").read_text().strip()
    return int(text.rpartition("-")[2].rpartition(",")[2]) + 1


@dataclass(frozen=True, slots=True)
class Map:
    """One map. Keys and values are bytes as C lays them out; errors are `KernelError`."""

    name: str
    descriptor: int
    type: int
    key_bytes: int
    value_bytes: int
    entries: int

    @classmethod
    def of(cls, name: str, descriptor: int) -> Map:
        """Ask the kernel for the map's shape."""
        shape = bpf.map_shape(descriptor)
        return cls(name, descriptor, shape.type, shape.key_size, shape.value_size, shape.entries)

    def get(self, key: bytes) -> bytes | None:
        """The value under a key, None when there is none; of a per-CPU map, that of all possible CPUs."""
        if len(key) != self.key_bytes:
            raise KernelError(f"reading map {self.name}: its keys have {self.key_bytes} bytes, not {len(key)}")
        return bpf.lookup(self.descriptor, key, self._read_bytes)

    def set(self, key: bytes, value: bytes) -> None:
        """Set the value under a key."""
        if (len(key), len(value)) != (self.key_bytes, self._read_bytes):
            raise KernelError(f"writing map {self.name}: sizes are {self.key_bytes} and {self._read_bytes} bytes")
        bpf.update(self.descriptor, key, value)

    def remove(self, key: bytes) -> bool:
        """Remove a key from a hash map; False when it was not there."""
        return bpf.delete(self.descriptor, key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All elements of a hash map, each once; those that come or go meanwhile may be among them or not."""
        seen: set[bytes] = set()
        key = bpf.next_key(self.descriptor, None, self.key_bytes)
        while key is not None and key not in seen and len(seen) < self.entries:
            seen.add(key)
            if (value := self.get(key)) is not None:
                yield key, value
            key = bpf.next_key(self.descriptor, key, self.key_bytes)

    def array(self) -> Iterator[bytes]:
        """All elements of an array map in order."""
        for index in range(self.entries):
            yield self.get(WORD.encode(index)) or bytes(self._read_bytes)

    @property
    def _read_bytes(self) -> int:
        if self.type not in (bpf.MapType.PERCPU_ARRAY, bpf.MapType.LRU_PERCPU_HASH):
            return self.value_bytes
        return (self.value_bytes + 7) // 8 * 8 * possible_cpus()


class Maps(Mapping[str, Map]):
    """The maps of one sensor, or of the core, by their names in C."""

    def __init__(self, descriptors: Mapping[str, int]) -> None:
        """Ask the kernel for the shape of each."""
        self._maps = {name: Map.of(name, descriptor) for name, descriptor in descriptors.items()}

    def __getitem__(self, name: str) -> Map:
        """The map with this name; raises `KeyError`."""
        return self._maps[name]

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._maps)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._maps)

    def starting_with(self, prefix: str) -> Maps:
        """Only the maps of one sensor."""
        chosen = Maps({})
        chosen._maps = {name: each for name, each in self._maps.items() if name.startswith(prefix)}
        return chosen
