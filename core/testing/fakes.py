"""Maps in memory, for tests of what a plugin does with its own: `krie_attached` and `krie_scan` without a kernel.

maps = fake_maps(my_plugin_known=FakeMap(key_bytes=4, value_bytes=8))
MyPlugin().krie_attached(maps)
assert maps["my_plugin_known"].get(bytes(4)) == bytes(8)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import KernelError
from ..kernel.maps import Map, Maps


@dataclass(frozen=True, slots=True)
class FakeMap(Map):
    """A hash map, or with `indexed` an array, that is as strict about sizes as the kernel's."""

    name: str = ""
    descriptor: int = -1
    type: int = 1  # BPF_MAP_TYPE_HASH
    key_bytes: int = 4
    value_bytes: int = 8
    entries: int = 1024
    indexed: bool = False
    """It is an array."""
    content: dict[bytes, bytes] = field(default_factory=dict)

    def get(self, key: bytes) -> bytes | None:
        """The value under a key, None when there is none; an array has zeros where nothing was set."""
        self._require(key)
        empty = bytes(self.value_bytes) if self.indexed and self._index(key) < self.entries else None
        return self.content.get(key, empty)

    def set(self, key: bytes, value: bytes) -> None:
        """Set the value under a key. Raises `KernelError` for another size, and where the map is full."""
        self._require(key, value)
        full = key not in self.content and len(self.content) >= self.entries
        if full or (self.indexed and self._index(key) >= self.entries):
            raise KernelError(f"writing map {self.name}: it has no room")
        self.content[key] = value

    def remove(self, key: bytes) -> bool:
        """Remove a key; False when it was not there."""
        self._require(key)
        return self.content.pop(key, None) is not None

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All elements."""
        yield from list(self.content.items())

    def _require(self, key: bytes, value: bytes | None = None) -> None:
        sizes = (len(key), len(value) if value is not None else self.value_bytes)
        if sizes != (self.key_bytes, self.value_bytes):
            raise KernelError(f"map {self.name}: sizes are {self.key_bytes} and {self.value_bytes} bytes, not {sizes}")

    def _index(self, key: bytes) -> int:
        return int.from_bytes(key, "little")


class _FakeMaps(Maps):
    def __init__(self, maps: dict[str, Map]) -> None:
        self._maps = maps


def fake_maps(**maps: FakeMap) -> Maps:
    """What `krie_attached` gets, with these maps by their names in C."""
    return _FakeMaps(dict(maps))
