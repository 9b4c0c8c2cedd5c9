"""A kernel's code and symbols out of what distributions ship: vmlinux, or a bootable image, without debug information.

The symbols are those that the kernel itself carries for /proc/kallsyms, packed by its build (scripts/kallsyms.c):

    names     for each symbol a length and as many numbers of tokens, which together spell its type and name
    markers   where every 256th of them begins
    tokens    256 texts, and where each of them begins
    offsets   addresses, in 32 bits, from a base that stands behind them; before the names up to 6.3, behind since
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from krie import ConfigError, build_id, unpacked

from .derivation import Code

_ELF = b"\x7fELF\x02\x01"
_SECTION = struct.Struct("<IIQQQQ")
_DIGITS = b"".join(b"%d\0" % each for each in range(10))
_FUNCTIONS = frozenset("tTwW")
_NO_BITS = 8
_FARTHEST = 3 << 20
_ENOUGH = 64
"""How far before the tokens the markers begin, at most, and how many of them tell that they are such."""
_LONG = 0x80
"""Since 5.19 (73bbb94466fd) a length of 128 and more takes two bytes."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What a file says of the kernel in it."""

    build_id: str
    release: str
    code: Code


def kernel_in(file: Path) -> Kernel:
    """Raises `ConfigError` where the file is not a kernel, or one that is laid out in an unknown way."""
    try:
        content = unpacked(file.read_bytes())
        sections = _sections(content)
        text, base = _content(content, sections, ".text"), sections[".text"][0]
        symbols = list(_symbols(content, sections))
        data = [_content(content, sections, each) for each in sections if each.startswith((".rodata", ".data"))]
        notes = _content(content, sections, ".notes")
        return Kernel(build_id(notes), _release(content, sections), Code(text, base, symbols, data))
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise ConfigError(str(file), f"holds no kernel whose symbols can be read: {error}") from error


def _sections(elf: bytes) -> dict[str, tuple[int, int, int]]:
    """Address, place and length by name, of those that lie in the file."""
    if not elf.startswith(_ELF):
        raise ValueError("it is neither a 64-bit ELF file nor a bzImage")
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [_SECTION.unpack_from(elf, table + index * size) for index in range(count)]
    strings = headers[names][4]
    found = {}
    for name_at, type_, _, address, place, length in headers:
        start = strings + name_at
        if type_ != _NO_BITS:
            found[elf[start : elf.index(b"\0", start)].decode()] = (address, place, length)
    return found


def _content(elf: bytes, sections: Mapping[str, tuple[int, int, int]], name: str) -> bytes:
    _, place, length = sections[name]
    return elf[place : place + length]


def _release(elf: bytes, sections: Mapping[str, tuple[int, int, int]]) -> str:
    rodata = _content(elf, sections, ".rodata")
    at = rodata.find(b"Linux version ")
    return rodata[at + 14 : at + 80].split(b" ", 1)[0].decode() if at >= 0 else ""


def _symbols(elf: bytes, sections: Mapping[str, tuple[int, int, int]]) -> Iterator[tuple[int, str]]:
    packed = _content(elf, sections, ".rodata")
    tokens_at, tokens, index_end = _tokens(packed)
    markers_at, markers = _markers(packed, tokens_at)
    names_at, names = _names(packed, markers_at, markers, tokens)
    text, length = sections[".text"][0], sections[".text"][2]
    for addresses in _possible_addresses(packed, sections[".rodata"][0], len(names), names_at, index_end):
        found = [(at, name[1:]) for at, name in zip(addresses, names, strict=True) if name[0] in _FUNCTIONS]
        if [at for at, name in found if name == "_stext"] == [text] and any(
            at == text + length or name == "_etext" for at, name in found
        ):
            return iter(found)
    raise ValueError("its kallsyms addresses are laid out in an unknown way")


def _tokens(packed: bytes) -> tuple[int, list[str], int]:
    """Where they begin, what they are, and where their index ends."""
    at = packed.find(_DIGITS)
    while at >= 0:
        begin = at
        for _ in range(ord("0")):
            begin = packed.rfind(b"\0", 0, begin - 1) + 1
        texts = packed[begin : begin + 8192].split(b"\0", 256)[:256]
        index = struct.pack("<256H", *accumulate((len(each) + 1 for each in texts[:-1]), initial=0))
        end = begin + sum(len(each) + 1 for each in texts)
        if (found := packed.find(index, end, end + 64 + len(index))) >= 0:
            return begin, [each.decode("latin-1") for each in texts], found + len(index)
        at = packed.find(_DIGITS, at + 1)
    raise ValueError("it has no table of kallsyms tokens: was it built with CONFIG_KALLSYMS?")


def _markers(packed: bytes, end: int) -> tuple[int, array[int]]:
    """Numbers that grow, from 0 on; where they begin. From 6.1 to 6.3 3 bytes a name stand behind them."""
    start = max(0, end - _FARTHEST) & ~3
    numbers = array("I", packed[start : end & ~3])
    for first, number in enumerate(numbers):
        if number or not _grows(numbers, first, _ENOUGH):
            continue
        last = first + _ENOUGH
        while last + 1 < len(numbers) and _grows(numbers, last, 1):
            last += 1
        return start + 4 * first, numbers[first : last + 1]
    raise ValueError("its kallsyms markers are laid out in an unknown way")


def _grows(numbers: array[int], start: int, times: int) -> bool:
    """By as much as 256 names take."""
    return start + times < len(numbers) and all(
        2 * 256 < numbers[each + 1] - numbers[each] < 512 * 256 for each in range(start, start + times)
    )


def _names(packed: bytes, end: int, markers: array[int], tokens: list[str]) -> tuple[int, list[str]]:
    """Where they begin, and each with its type before it. They end before the markers."""
    last = end - markers[-1]
    for start in range(last & ~3, max(0, last - 256 * 512), -4):
        if _walk(packed, start, markers[1], 256) == start + markers[1]:
            names = _spelled(packed, start, end, markers, tokens)
            if names is not None:
                return start, names
    raise ValueError("its kallsyms names are laid out in an unknown way")


def _walk(packed: bytes, at: int, most: int, count: int) -> int:
    """Behind so many names; 0 where they are longer than `most` in all."""
    end = at + most
    for _ in range(count):
        length, at = _length(packed, at)
        at += length
        if not length or at > end:
            return 0
    return at


def _length(packed: bytes, at: int) -> tuple[int, int]:
    """Of a name in tokens, and where these begin."""
    length = packed[at]
    if length & _LONG:
        return length & (_LONG - 1) | packed[at + 1] << 7, at + 2
    return length, at + 1


def _spelled(packed: bytes, start: int, end: int, markers: array[int], tokens: list[str]) -> list[str] | None:
    at = start
    names: list[str] = []
    while at < end and packed[at]:
        if len(names) % 256 == 0 and (len(names) // 256 >= len(markers) or markers[len(names) // 256] != at - start):
            return None
        length, at = _length(packed, at)
        names.append("".join(map(tokens.__getitem__, packed[at : at + length])))
        at += length
    return names if at <= end < at + 8 and len(names) > 256 * (len(markers) - 1) else None


def _possible_addresses(packed: bytes, base: int, count: int, names_at: int, index_end: int) -> Iterator[list[int]]:
    """By the ways that kernels have had; `base`: the address of what is packed."""
    behind = (index_end + 7) // 8 * 8
    before = [(at - 4 * count - pad, at) for at in (names_at - 16, names_at - 12, names_at - 24) for pad in (0, 4)]
    for at, from_ in ((behind, (behind + 4 * count + 7) // 8 * 8), *before):
        if at >= 0 and from_ + 8 <= len(packed):
            offsets = array("i", packed[at : at + 4 * count])
            (first,) = struct.unpack_from("<Q", packed, from_)
            # Up to 6.14 those of per-CPU symbols are absolute, and all others negative, less 1.
            yield [first - 1 - each if each < 0 else each for each in offsets]
            yield [first + each for each in array("I", offsets.tobytes())]
    # Newer ones: each from its own place on.
    offsets = array("i", packed[index_end : index_end + 4 * count])
    yield [base + index_end + 4 * index + each for index, each in enumerate(offsets)]
