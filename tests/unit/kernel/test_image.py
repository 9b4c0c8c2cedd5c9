"""A kernel's types, out of each kind of file that has them."""

import bz2
import gzip
import lzma
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from krie.errors import ConfigError
from krie.kernel.image import types_of

from ..btf_file import BtfFile


def appended(program: str, *options: str) -> Callable[[bytes], bytes]:
    """Packed by a program, with the size behind it, as the kernel's build does."""

    def pack(content: bytes) -> bytes:
        done = subprocess.run([program, *options], input=content, capture_output=True, check=True)
        return done.stdout + struct.pack("<I", len(content))

    return pack


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": lambda content: bz2.compress(content) + struct.pack("<I", len(content)),
    "xz": lambda content: lzma.compress(content, check=lzma.CHECK_CRC32) + struct.pack("<I", len(content)),
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE) + struct.pack("<I", len(content)),
    "zstd": appended("zstd", "-c"),
    "lz4": appended("lz4", "-l", "-c"),
}


@pytest.fixture
def raw(tmp_path: Path) -> bytes:
    made = BtfFile()
    made.struct("task_struct", 8, [("tgid", made.integer("int"), 4)])
    return made.write(tmp_path / "raw").read_bytes()


def elf(raw: bytes, name: bytes = b".BTF") -> bytes:
    """With one section, and the one of its name."""
    names = b"\0" + name + b"\0.shstrtab\0"
    header = b"\x7fELF\x02\x01\x01".ljust(0x28, b"\0") + struct.pack("<Q", 64 + len(raw) + len(names))
    header = (header + bytes(10) + struct.pack("<HHH", 64, 3, 2)).ljust(64, b"\0")
    sections = [(0, 0, 0), (1, 64, len(raw)), (len(name) + 2, 64 + len(raw), len(names))]
    table = [struct.pack("<IIQQQQ", at, 1, 0, 0, place, size).ljust(64, b"\0") for at, place, size in sections]
    return header + raw + names + b"".join(table)


def image(payload: bytes) -> bytes:
    """A bzImage, whose first part takes 3 sectors and whose payload begins 100 bytes behind it."""
    head = bytearray(3 * 512)
    head[0x1F1] = 2
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 100, len(payload))
    return bytes(head) + bytes(100) + payload + b"what comes behind it"


def has_types(file: Path, content: bytes) -> bool:
    file.write_bytes(content)
    return types_of(file).offset("task_struct", "tgid") == 4


def test_btf_and_elf(raw: bytes, tmp_path: Path) -> None:
    assert has_types(tmp_path / "btf", raw)
    assert has_types(tmp_path / "vmlinux", elf(raw))


@pytest.mark.parametrize("packing", PACKED)
def test_bootable_images(raw: bytes, tmp_path: Path, packing: str) -> None:
    if packing in ("zstd", "lz4") and shutil.which(packing) is None:
        pytest.skip(f"{packing} is not installed")
    assert has_types(tmp_path / "vmlinuz", image(PACKED[packing](elf(raw))))


def test_what_has_no_types_is_named(raw: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    damaged = bytearray(gzip.compress(elf(raw)))
    damaged[20] ^= 0xFF
    zstd = struct.pack("<I", 0xFD2FB528) + bytes(100)
    for content, problem in (
        (b"", "it is neither BTF nor a 64-bit ELF file nor a bzImage"),
        (b"#!/bin/sh", "it is neither BTF nor a 64-bit ELF file nor a bzImage"),
        (elf(raw, b".text"), "it has no section .BTF: was it built with CONFIG_DEBUG_INFO_BTF?"),
        (elf(raw)[:100], "unpack"),
        (image(b"unknown"), r"its compression is not known \(it begins with 756e6b6e\)"),
        (image(bytes(damaged)), "its payload is damaged: "),
        (image(gzip.compress(b"no kernel")), "it is neither BTF"),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=f"^{file}: holds no types of a kernel: {problem}"):
            types_of(file)
    monkeypatch.setenv("PATH", str(tmp_path))
    file.write_bytes(image(zstd))
    with pytest.raises(ConfigError, match="it takes zstd to unpack it: install zstd"):
        types_of(file)
    with pytest.raises(ConfigError, match="none: cannot be read: No such file or directory"):
        types_of(tmp_path / "none")
