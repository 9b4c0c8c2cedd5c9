"""What the agent compares the kernel's code and read-only data with: made once, in a file that nobody can change.

Where the boot image is there, it tells what code should be, but for what the kernel patches while it boots: of that,
and of everything where there is no image, the reference is what stood there at the first look.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from krie import KernelMemory, Symbols

from .comparison import Area
from .explain import NOPS, Code, Lists, read_lists, target
from .image import NOP5
from .reference import NoReferenceError, Part, find, prepare
from .runs import Ranges
from .tables import Tables, read_tables

_TRIES, _BETWEEN_S = 5, 0.05
_PAGE = 4096
_JUMP, _CALL = 0xE9, 0xE8
_CALL_BYTES = 6
"""Of a static call at most: a conditional jump."""
_OF_THE_KERNEL = re.compile(rb"^([0-9a-f]+) [tTwW] ([^\t\n]+)$", re.MULTILINE)
_OF_MODULES = re.compile(rb"^([0-9a-f]+) [tTwW] ([^\t\n]+)\t\[([^]\n]+)\]$", re.MULTILINE)
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, slots=True)
class Stored:
    """A reference whose bytes lie in a file."""

    reference: str
    """A value of `events.REFERENCES`."""
    image: str
    """Its path; empty where there is none."""
    parts: tuple[tuple[str, int, int, int], ...]
    """Section, address, bytes, and place in the file."""
    locks: tuple[int, int]
    """Place and number of addresses in the file: see `Code.locks`."""
    traps: tuple[int, ...]
    """Addresses: see `Area.traps`."""
    unknown: tuple[str, ...] = ()
    """What is not compared."""
    why: str = ""
    """Why there is no image, or no reference at all."""


def store(
    file: int, memory: KernelMemory, kallsyms: bytes, symbols: Symbols, address: Callable[[str], int], release: str
) -> Stored:
    """Make the reference, and seal the file. Takes seconds where there is an image. Raises `KernelError`, `OSError`."""
    if not address("__start___jump_table"):
        return Stored("none", "", (), (0, 0), (), ("code",), "this kernel does not tell where its jump labels are")
    unknown: tuple[str, ...] = ()
    why = ""
    try:
        made = prepare(*find(release), address)
        image, parts, locks = str(made.image), made.parts, made.locks
        secure = ((each, _CALL_BYTES) for each in read_tables(memory, address, kallsyms).security)
        boot = Ranges((*((each.start, len(each)) for each in made.boot), *secure))
    except NoReferenceError as error:
        image, parts, boot, locks = "", _parts(memory, address), Ranges(()), Ranges(())
        unknown, why = ("code before the agent's start",), str(error)
    lists = read_lists(kallsyms)
    code = Code(range(address("_stext"), address("_etext")), _none, _none, symbols, Tables(), (lists,))
    if not any(each.section == "rodata" for each in parts):
        unknown = (*unknown, "read-only data")
    contents: list[bytearray] = []
    traps: set[int] = set()
    for part in parts:
        content = bytearray(part.content)
        taken = list(boot) if image else [range(part.start, part.start + len(content))]
        if image:
            now = _steady(memory, part.start, len(content))
            for each in taken:
                place = slice(max(0, each.start - part.start), max(0, each.stop - part.start))
                content[place] = now[place]
        if part.section == "text":
            without_tracers(content, part.start, _handled(kallsyms, lists), code)
            traps = trapped(content, part.start, lists, Ranges((each.start, len(each)) for each in taken))
        contents.append(content)
    reference = "image" if image else "start"
    return Stored(reference, image, *_written(file, parts, contents, locks), tuple(traps), unknown, why)


def areas_of(stored: Stored, file: int) -> tuple[list[Area], Ranges]:
    """The areas, privately mapped, and `Code.locks`. Raises `OSError`."""
    areas = []
    for section, start, size, place in stored.parts:
        content = mmap.mmap(file, size, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=place)
        areas.append(Area(section, start, content, traps={each for each in stored.traps if section == "text"}))
    locks = array("Q")
    place, count = stored.locks
    locks.frombytes(os.pread(file, 8 * count, place))
    return areas, Ranges((each, 1) for each in locks)


def without_tracers(content: bytearray, start: int, begins: Iterable[int], code: Code) -> None:
    """Put the nop back where ftrace has a function call a tracer."""
    for begin in begins:
        for site in (begin, begin + 4):
            place = site - start
            now = bytes(content[place : place + 5]) if place >= 0 else b""
            if len(now) == 5 and now[0] == _CALL and code.is_tracer(target(now, site)):
                content[place : place + 5] = NOP5


def trapped(content: bytearray, start: int, lists: Lists, within: Ranges) -> set[int]:
    """Addresses of bytes that kprobes have replaced, where the reference is what stands there now."""
    found: set[int] = set()
    for site in lists.kprobes or ():
        if not start <= site < start + len(content):
            continue
        first = content[site - start]
        size = 5 if first == _JUMP else 0 if content[site - start : site - start + 5] in NOPS else 1
        found.update(each for each in range(site, site + size) if within.end(each))
    return found


def module_functions(kallsyms: bytes) -> dict[str, list[tuple[int, str]]]:
    """By module the address and name of each function. Also of `bpf` and the like, for code that these made."""
    found: dict[str, list[tuple[int, str]]] = {}
    for each in _OF_MODULES.finditer(kallsyms):
        found.setdefault(each[3].decode(), []).append((int(each[1], 16), each[2].decode(errors="backslashreplace")))
    return found


def _handled(kallsyms: bytes, lists: Lists) -> Iterator[int]:
    handled = lists.handled
    for each in _OF_THE_KERNEL.finditer(kallsyms):
        if handled is None or each[2].decode() in handled:
            yield int(each[1], 16)


def _none(_address: int, _size: int) -> bytes:
    return b""


def _parts(memory: KernelMemory, address: Callable[[str], int]) -> tuple[Part, ...]:
    found = []
    for section, begin, end in (("text", "_stext", "_etext"), ("rodata", "__start_rodata", "__end_rodata")):
        start, size = address(begin), address(end) - address(begin)
        if start and size > 0:
            found.append(Part(section, start, _steady(memory, start, size)))
    return tuple(found)


def _steady(memory: KernelMemory, start: int, size: int) -> bytes:
    """What two looks agree on: code is patched in steps."""
    content = memory.read(start, size)
    for _ in range(_TRIES):
        time.sleep(_BETWEEN_S)
        before, content = content, memory.read(start, size)
        if before == content:
            break
    return content


def _written(
    file: int, parts: Iterable[Part], contents: Iterable[bytearray], locks: Ranges
) -> tuple[tuple[tuple[str, int, int, int], ...], tuple[int, int]]:
    places, place = [], 0
    for part, content in zip(parts, contents, strict=True):
        os.pwrite(file, content, place)
        places.append((part.section, part.start, len(content), place))
        place += -(-len(content) // _PAGE) * _PAGE
    addresses = array("Q", (address for each in locks for address in each))
    os.pwrite(file, addresses.tobytes(), place)
    os.ftruncate(file, place + 8 * len(addresses))
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    return tuple(places), (place, len(addresses))
