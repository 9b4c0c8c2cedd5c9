"""A kernel's types, out of what distributions ship: raw BTF, an ELF file, or a bootable image."""

from __future__ import annotations

import bz2
import lzma
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

from ..errors import ConfigError
from .btf import Btf

_RAW, _ELF = b"\x9f\xeb", b"\x7fELF\x02\x01"
_SETUP_SECTORS, _MAGIC, _PAYLOAD = 0x1F1, 0x202, 0x248
"""Where a bzImage says how long its first part is, what it is, and where in the second its payload lies
(Documentation/arch/x86/boot.rst)."""
_PROGRAMS = {b"\x28\xb5\x2f\xfd": "zstd", b"\x02\x21\x4c\x18": "lz4"}
"""Compressions that Python does not know."""
_SECTION = struct.Struct("<IIQQQQ")


def types_of(file: Path) -> Btf:
    """The types of the kernel that this file is of. Raises `ConfigError` where it has none, `KernelError`."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {error.strerror}") from error
    try:
        return Btf(str(file), _btf_in(content))
    except (ValueError, struct.error) as error:
        raise ConfigError(str(file), f"holds no types of a kernel: {error}") from error


def unpacked(content: bytes) -> bytes:
    """What a bootable image unpacks when it boots; anything else as it is. Raises `ValueError`, `struct.error`."""
    return _payload(content) if content[_MAGIC : _MAGIC + 4] == b"HdrS" else content


def _btf_in(content: bytes) -> bytes:
    if content.startswith(_RAW):
        return content
    content = unpacked(content)
    if not content.startswith(_ELF):
        raise ValueError("it is neither BTF nor a 64-bit ELF file nor a bzImage")
    return _section(content, b".BTF")


def _payload(image: bytes) -> bytes:
    """What the image unpacks when it boots."""
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = (image[_SETUP_SECTORS] + 1) * 512 + offset
    packed = image[start : start + length]
    try:
        if packed.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(packed)
        if packed.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(packed)
        if packed.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
            return lzma.LZMADecompressor().decompress(packed)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"its payload is damaged: {error}") from error
    if (program := _PROGRAMS.get(packed[:4])) is None:
        raise ValueError(f"its compression is not known (it begins with {packed[:4].hex()})")
    return _unpacked(program, packed[:-4])  # the kernel's build appends the size


def _unpacked(program: str, packed: bytes) -> bytes:
    if shutil.which(program) is None:
        raise ValueError(f"it takes {program} to unpack it: install {program}")
    done = subprocess.run([program, "-dc"], input=packed, capture_output=True, check=False)
    if done.returncode:
        raise ValueError(f"its payload is damaged: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _section(elf: bytes, name: bytes) -> bytes:
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    sections = [_SECTION.unpack_from(elf, table + index * size) for index in range(count)]
    if names >= count:
        raise ValueError("its sections have no names")
    strings = sections[names][4]
    for name_at, _, _, _, place, length in sections:
        start = strings + name_at
        if elf[start : elf.index(b"\0", start)] == name:
            return elf[place : place + length]
    raise ValueError(f"it has no section {name.decode()}: was it built with CONFIG_DEBUG_INFO_BTF?")
