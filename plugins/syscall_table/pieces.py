"""Pieces of kernel memory that a look compares, as the BPF programs have them (looks.bpf.c)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .events import NO_ABI, PIECE_BYTES
from .maps import MOST_MASKS, MOST_PIECES, MOST_SITES, Compared, Sites

NOWHERE = 0xFF


@dataclass(frozen=True, slots=True)
class Site:
    """A jump or call of a function that dispatches system calls."""

    offset: int
    """Bytes behind the piece's begin."""
    length: int
    number: int
    """Of the system call; -1 where it is not known."""


@dataclass(frozen=True, slots=True)
class Piece:
    """So much memory, at most `PIECE_BYTES`, and what of it counts."""

    where: int
    """A key of `events.WHERE`."""
    address: int
    expected: bytes
    abi: int = NO_ABI
    number: int = -1
    ignored: tuple[range, ...] = ()
    """Offsets of bytes that change legally."""
    sites: tuple[Site, ...] = ()
    ftrace: int | None = None
    """Offset of the call that ftrace may make."""
    wrong: tuple[int, ...] = ()
    """Words of 8 bytes that are not as they should be at start."""
    taken: tuple[range, ...] | None = None
    """Bytes of which is not known either how they should be; None: that is all words that are wrong."""
    name: str = ""
    """The symbol that it is part of, and how far behind its begin."""
    offset: int = 0

    @property
    def mask(self) -> bytes:
        """0xff for each byte that counts."""
        mask = bytearray(b"\xff" * len(self.expected)).ljust(PIECE_BYTES, b"\0")
        skipped = (*self.ignored, *(() if self.ftrace is None else (range(self.ftrace, self.ftrace + 5),)))
        for each in skipped:
            for index in each:
                mask[index] = 0
        return bytes(mask)


@dataclass(slots=True)
class Packed:
    """All of the pieces as the maps have them."""

    pieces: list[bytes] = field(default_factory=list)
    masks: list[bytes] = field(default_factory=list)
    sites: list[bytes] = field(default_factory=list)


def packed(pieces: Iterable[Piece]) -> Packed:
    """Those that there is room for, in their order."""
    made = Packed(sites=[bytes(Sites.size())])  # 0 stands for none
    masks: dict[bytes, int] = {}
    for each in pieces:
        if len(made.pieces) == MOST_PIECES - 1:
            break
        number = masks.setdefault(each.mask, len(masks))
        if number >= MOST_MASKS or len(made.sites) >= MOST_SITES:
            break
        sites = 0
        if each.sites:
            sites = len(made.sites)
            made.sites.append(_packed_sites(each.sites))
        made.pieces.append(_packed_piece(each, number, sites))
    made.masks = list(masks)
    return made


def _packed_piece(piece: Piece, mask: int, sites: int) -> bytes:
    expected = bytearray(piece.expected.ljust(PIECE_BYTES, b"\0"))
    words = tuple(range(8 * word, 8 * word + 8) for word in piece.wrong)
    for each in words if piece.taken is None else piece.taken:
        expected[each.start : each.stop] = bytes(len(each))
    return Compared(
        piece.address,
        bytes(expected),
        bytes(expected),
        len(piece.expected),
        piece.number,
        mask,
        piece.where,
        piece.abi,
        sites,
        start=sum(1 << word for word in piece.wrong),
        ftrace=0 if piece.ftrace is None else piece.ftrace + 1,
    ).encode()


def _packed_sites(sites: Iterable[Site]) -> bytes:
    mask, starts, numbers = bytearray(PIECE_BYTES), bytearray([NOWHERE] * PIECE_BYTES), [-1] * PIECE_BYTES
    for site in sites:
        for byte in range(site.offset, site.offset + site.length):
            mask[byte], starts[byte], numbers[byte] = 0xFF, site.offset, site.number
    return Sites(bytes(mask), tuple(starts), tuple(numbers)).encode()


def cut(extent: range, kept_whole: Iterable[range] = ()) -> list[range]:
    """Parts of at most `PIECE_BYTES`, none of which ends within one of the ranges that are kept whole."""
    parts: list[range] = []
    whole: Mapping[int, range] = {address: each for each in kept_whole for address in each[1:]}
    start = extent.start
    while start < extent.stop:
        stop = min(start + PIECE_BYTES, extent.stop)
        if stop < extent.stop and (inside := whole.get(stop)) is not None:
            stop = inside.start
        parts.append(range(start, stop))
        start = stop
    return parts
