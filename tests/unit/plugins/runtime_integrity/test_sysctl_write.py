"""Whether the program may believe that the kernel ignores writes behind a sysctl's start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from krie.plugins.runtime_integrity.config import RuntimeIntegrityConfig
from krie.plugins.runtime_integrity.sysctl_write import Strict
from krie.testing.fakes import FakeMap, fake_maps


class Kernel:
    """The setting's file and the program's maps."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "sysctl_writes_strict"
        self.file.write_text("1\n")
        self.writes, self.found_at = FakeMap(indexed=True), FakeMap(indexed=True)
        self.strict = Strict(self.file)
        maps = fake_maps(runtime_integrity_strict_writes=self.writes, runtime_integrity_strict_at=self.found_at)
        memory: Any = None
        self.strict.attach(maps, memory, RuntimeIntegrityConfig())

    def write(self) -> None:
        """The program counts one."""
        self.writes.set(bytes(4), (_number(self.writes) + 1).to_bytes(8, "little"))

    def believed(self) -> bool:
        """As the program compares."""
        return _number(self.found_at) == _number(self.writes) + 1


def _number(map_: FakeMap) -> int:
    return int.from_bytes(map_.get(bytes(4)) or b"", "little")


def test_found_at_the_start(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    assert kernel.believed()
    list(kernel.strict.scan())
    assert kernel.believed()


def test_a_write_is_waited_for(tmp_path: Path) -> None:
    """The program counts before the kernel writes: what the next look finds may be the value before."""
    kernel = Kernel(tmp_path)
    kernel.write()
    assert not kernel.believed()
    list(kernel.strict.scan())
    assert not kernel.believed()
    kernel.file.write_text("0\n")
    list(kernel.strict.scan())
    assert not kernel.believed()
    kernel.write()
    kernel.file.write_text("1\n")
    list(kernel.strict.scan())
    assert not kernel.believed()
    list(kernel.strict.scan())
    assert kernel.believed()


def test_changed_without_a_write(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.file.write_text("-1\n")
    list(kernel.strict.scan())
    assert not kernel.believed()


def test_a_kernel_without_the_setting(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.file.unlink()
    list(kernel.strict.scan())
    assert not kernel.believed()
