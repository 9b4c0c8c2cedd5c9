"""Where a kernel module can be seen: lists in the kernel's memory, and what the kernel tells of them in files.

list      the kernel's list of modules, in its memory
kset      the list of their objects behind /sys/module, likewise
memory    where modules lie and no listed one does: a struct module, known by its pointer to itself
proc, sysfs, kallsyms   /proc/modules, /sys/module, and the module behind a symbol in /proc/kallsyms
"""

from __future__ import annotations

import os
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from krie import AnyFile, Btf, KernelError, KernelFile, KernelMemory, loaded_modules, text_of

PROC, SYSFS, KALLSYMS = KernelFile("/proc/modules"), KernelFile("/sys/module"), KernelFile("/proc/kallsyms")
_PAGE = 4096
_MOST = 10_000
"""Elements of a list that are followed: more is not a list."""
_LIVE, _ALIGNED = 0, 64  # MODULE_STATE_LIVE; struct module begins a cache line
_NAME_BYTES = 56  # MODULE_NAME_LEN
# The kernel takes any name: what follows one, and not of what it consists, tells where it ends.
_TAG = re.compile(rb"\t\[(.*?)\](?:\n(?=[0-9a-f]+ )|\n?\Z)", re.DOTALL)
_NO_MODULES = frozenset({"bpf", "__builtin__ftrace", "__builtin__kprobes"})
"""What kallsyms names like modules: code that the kernel generates."""
SYMBOLS = ("modules", "module_kset", "mod_tree")


@dataclass(frozen=True, slots=True)
class Module:
    """A struct module in the kernel's memory."""

    address: int
    name: str
    """As `krie.text_of` shows it, and with the `!` that sysfs has for a slash."""
    live: bool
    """Neither being loaded nor unloaded."""
    ranges: tuple[tuple[int, int], ...]
    """Where its code and data lie: begin and end."""


class ModuleMemory:
    """Finds modules in the kernel's memory."""

    def __init__(self, memory: KernelMemory, places: Mapping[str, int], btf: Btf) -> None:
        """`places`: addresses of `SYMBOLS`. Raises `LookupError` for what this kernel does not have."""
        self._memory, self._places, self._btf = memory, places, btf
        for each in SYMBOLS:
            if not places.get(each):
                raise LookupError(f"the kernel tells no address of {each}")
        self._size = self._of("module", size=True)
        self._list, self._name = self._of("module", "list"), self._of("module", "name")
        self._state, self._self = self._of("module", "state"), self._of("module", "mkobj.mod")
        self._kset_list, self._entry = self._of("kset", "list"), self._of("kobject", "entry")
        self._object, self._module = self._of("module_kobject", "kobj"), self._of("module_kobject", "mod")
        self._parts = tuple(self._find_parts())

    def listed(self) -> list[Module]:
        """Those in the kernel's list. Raises `KernelError`, as all here do where memory changes under the look."""
        return [self.at(node - self._list) for node in self._nodes(self._places["modules"])]

    def in_kset(self) -> list[Module]:
        """Those with an object in the kset; built-in modules have one too, but no struct module."""
        kset = self._memory.number(self._places["module_kset"])
        objects = (node - self._entry - self._object for node in self._nodes(kset + self._kset_list))
        addresses = (self._memory.number(each + self._module) for each in objects)
        return [self.at(each) for each in addresses if each]

    def unlisted(self, listed: list[Module]) -> list[Module]:
        """Live modules that lie between those listed."""
        first = self._memory.number(self._places["mod_tree"] + self._of("mod_tree_root", "addr_min"))
        end = self._memory.number(self._places["mod_tree"] + self._of("mod_tree_root", "addr_max"))
        found = []
        for page in _gaps(first, end, sorted(part for each in listed for part in each.ranges)):
            try:
                raw = self._memory.read(page, _PAGE)
            except KernelError:  # nothing is mapped there
                continue
            for address in self._pointing_to_itself(page, raw):
                module = self.at(address)
                # One that took its name away is known by where its struct lies: in its own data.
                if module.live and (module.name or any(begin <= address < end for begin, end in module.ranges)):
                    found.append(module)
        return found

    def at(self, address: int) -> Module:
        """The module whose struct lies here."""
        raw = self._memory.read(address, self._size)
        ranges = []
        for base_at, size_at in self._parts:
            base, size = int.from_bytes(raw[base_at : base_at + 8], "little"), struct.unpack_from("=I", raw, size_at)[0]
            if base and size:
                ranges.append((base, base + size))
        live = struct.unpack_from("=I", raw, self._state)[0] == _LIVE
        return Module(address, _shown(raw[self._name : self._name + _NAME_BYTES]), live, tuple(ranges))

    def _pointing_to_itself(self, page: int, raw: bytes) -> Iterator[int]:
        first = self._self // 8 % (_ALIGNED // 8)
        for index, value in enumerate(struct.unpack(f"={_PAGE // 8}Q", raw)[first :: _ALIGNED // 8]):
            if value + self._self == page + 8 * first + _ALIGNED * index:
                yield value

    def _nodes(self, head: int) -> Iterator[int]:
        node = self._memory.number(head)
        for _ in range(_MOST):
            if node == head:
                return
            yield node
            node = self._memory.number(node)
        raise KernelError("following a list in the kernel's memory: it has no end")

    def _find_parts(self) -> Iterator[tuple[int, int]]:
        """Offsets of base and size of each part of a module: an array since ac3b43283923, two layouts before."""
        if (array := self._btf.offset("module", "mem")) is not None:
            step = self._of("module_memory", size=True)
            for at in range(array, array + (self._btf.size("module", "mem") or 0), step):
                yield at + self._of("module_memory", "base"), at + self._of("module_memory", "size")
            return
        for layout in ("core_layout", "init_layout"):
            yield self._of("module", f"{layout}.base"), self._of("module", f"{layout}.size")

    def _of(self, type_name: str, path: str = "", *, size: bool = False) -> int:
        found = self._btf.size(type_name, path) if size else self._btf.offset(type_name, path)
        if found is None:
            raise LookupError(f"this kernel's BTF has no {type_name}.{path}")
        return found


def _gaps(first: int, end: int, ranges: list[tuple[int, int]]) -> Iterator[int]:
    """Pages of which no range holds the first and the last byte; ranges begin at a page's start."""
    starts = [start for start, _ in ranges]
    for page in range(first & -_PAGE, end, _PAGE):
        index = bisect_right(starts, page) - 1
        if index < 0 or ranges[index][1] <= page:
            yield page


def in_proc(file: AnyFile = PROC) -> frozenset[str]:
    """Names in /proc/modules."""
    return frozenset(_shown(each.raw) for each in loaded_modules(file))


def in_sysfs(folder: AnyFile = SYSFS) -> frozenset[str]:
    """Names of those in /sys/module that are not built-in ones."""
    return frozenset(_shown(os.fsencode(each.name)) for each in folder.iterdir() if (each / "initstate").exists())


def in_kallsyms(file: AnyFile = KALLSYMS) -> frozenset[str]:
    """Names of those that have symbols."""
    with file.open("rb") as symbols:
        names = {_shown(each) for each in set(_TAG.findall(symbols.read()))}
    return frozenset(names - _NO_MODULES)


def _shown(name: bytes) -> str:
    return text_of(name).replace("/", "!")
