"""Functions that try to execute a file: the kernel's formats of programs (binfmt)."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from krie import KernelError

from .entry import Entry
from .walker import Walker

KNOWN = "script_format"
"""A format of every kernel's: the list's head shares its name, `formats`, with variables of drivers."""
SYMBOLS = (KNOWN,)
FIELDS = (
    ("linux_binfmt", "lh"),
    ("linux_binfmt", "load_binary"),
    ("linux_binfmt", "load_shlib"),
    ("linux_binfmt", "core_dump"),
)
HEAD = "formats"


def formats(walker: Walker, heads: Collection[int]) -> Iterator[Entry]:
    """`heads`: the kernel's variables with the name of `HEAD`. Raises `KernelError` if the list has not one of them."""
    listed = walker.offset("linux_binfmt", "lh")
    walker.offset("linux_binfmt", "load_binary")
    known = walker.address(KNOWN)
    ring = [known + listed, *walker.chain(walker.number(known + listed), known + listed)] if known else []
    if sum(each in heads for each in ring) != 1:
        raise KernelError("looking for formats of programs", 0)
    for each in ring:
        for field in FIELDS[1:]:
            at = walker.offsets.get(field)
            if each not in heads and at is not None and (found := walker.number(each - listed + at)):
                yield Entry("binary formats", each - listed + at, found)
