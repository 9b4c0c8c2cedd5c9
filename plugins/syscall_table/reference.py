"""What the kernel's code is compared with: the boot image of the kernel that runs, where it is there."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from krie import AnyFile, KernelFile, KrieError, build_id, read_trusted, unpacked

from .image import NOP5, Image
from .runs import Ranges

_MOST_BYTES = 256 << 20
NOTES = KernelFile("/sys/kernel/notes")
PLACES = ("/boot/vmlinuz-{0}", "/lib/modules/{0}/vmlinuz", "/usr/lib/modules/{0}/vmlinuz")


class NoReferenceError(Exception):
    """There is no boot image that could be used; says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """Memory that is compared."""

    section: str
    start: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Reference:
    """What memory should hold."""

    image: Path
    parts: tuple[Part, ...]
    boot: Ranges
    """Where the kernel patches itself, or writes, while it boots: the image does not tell what stands there."""
    locks: Ranges
    """Prefixes that it makes to locks where its second processor comes."""


def find(release: str, notes: AnyFile = NOTES, places: Iterable[str] = PLACES) -> tuple[Path, Image]:
    """The boot image of the running kernel. Raises `NoReferenceError`."""
    problems = []
    try:
        running = build_id(notes.read_bytes())
    except OSError as error:
        raise NoReferenceError(f"{notes} does not tell which kernel runs: {error.strerror}") from error
    except ValueError as error:
        raise NoReferenceError(f"{notes} does not tell which kernel runs: {error}") from error
    for place in map(Path, (each.format(release) for each in places)):
        if not place.exists():
            continue
        try:
            image = Image(unpacked(read_trusted(place, _MOST_BYTES)))
        except (KrieError, ValueError, struct.error) as error:
            problems.append(f"{place}: {error}" if not isinstance(error, KrieError) else str(error))
            continue
        if image.build_id == running:
            return place, image
        problems.append(f"{place} is another kernel (build id {image.build_id or 'unknown'}, not {running})")
    looked = ", ".join(each.format(release) for each in places)
    raise NoReferenceError("; ".join(problems) or f"no boot image is at {looked}")


def prepare(place: Path, image: Image, address: Callable[[str], int]) -> Reference:
    """The image as it should stand in memory. Takes a second. Raises `NoReferenceError` where that is not known."""
    begin, end = address("_stext"), address("_etext")
    if not begin or end <= begin:
        raise NoReferenceError("the kernel tells no addresses of its code (kernel.kptr_restrict)")
    delta = (address("_text") or begin) - image.text
    try:
        text = image.relocated(begin - delta, end - begin, delta)
        sites = frozenset(_fentries(image, address, delta))
        _without_ftrace(text, begin - delta, sites)
        parts = [Part("text", begin, bytes(text))]
        # Calls of __fentry__ are among .call_sites, too. There nothing but ftrace may change anything.
        boot = [(start + delta, length) for start, length in image.patched() if start not in sites]
        first, last = address("__start_rodata"), address("__end_rodata")
        if first and last > first and address("__end_ro_after_init"):
            size = min(last - delta, image.stop(first - delta)) - (first - delta)
            parts.append(Part("rodata", first, bytes(image.relocated(first - delta, size, delta))))
            written = address("__start_ro_after_init")
            boot.append((written, address("__end_ro_after_init") - written))
    except ValueError as error:
        raise NoReferenceError(f"{place}: {error}") from error
    locks = Ranges((start + delta, length) for start, length in image.locks())
    return Reference(place, tuple(parts), Ranges(boot), locks)


def _without_ftrace(text: bytearray, start: int, sites: Iterable[int]) -> None:
    """The kernel replaces each call of __fentry__ while it boots."""
    for site in sites:
        if start <= site <= start + len(text) - len(NOP5):
            text[site - start : site - start + len(NOP5)] = NOP5


def _fentries(image: Image, address: Callable[[str], int], delta: int) -> Iterator[int]:
    begin, end = address("__start_mcount_loc"), address("__stop_mcount_loc")
    if address("__fentry__") and not begin:
        raise NoReferenceError("the kernel does not tell where ftrace patches it (CONFIG_KALLSYMS_ALL)")
    if begin and end > begin:
        content = image.at(begin - delta, (end - begin) // 8 * 8)
        yield from (each for (each,) in struct.iter_unpack("<Q", content))
