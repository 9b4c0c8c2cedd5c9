"""Functions in the kernel's lists, and whose they are: for `krie integrity`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable

from krie import Check, Difference, KernelMemory, kallsyms_text

from .entry import Entry
from .explain import read_lists
from .formats import HEAD
from .kallsyms import CODE, KALLSYMS, addresses_in, all_addresses_in
from .lists import SYMBOLS, FunctionLists, offsets
from .modules import named_ranges

_SETTLES_S = 0.2
_MOST = 64
_REFERENCE = "the kernel's own code, modules that are listed, code of BPF, ftrace and kprobes"
_ELSE = "functions in other lists, and whether one that has an owner belongs where it is"


def check(memory: KernelMemory, progress: Callable[[str], None]) -> Iterable[Check]:
    """One look: who belongs to nobody twice is told, since modules come and go. Raises `KernelError`, `OSError`."""
    progress("walking lists of functions ...")
    kallsyms = kallsyms_text(KALLSYMS)
    address = addresses_in(kallsyms, (*CODE, *SYMBOLS))
    heads = all_addresses_in(kallsyms, (HEAD,)).get(HEAD, set())
    lists = FunctionLists(memory, address, offsets(), heads)
    text = range(address("_stext"), address("_etext"))
    if not text:
        yield Check("lists of functions", not_looked_at=("lists: the kernel hides its symbols",))
        return
    owners, unknown = _owners(lists, text)
    strays = [each for each, owner in owners.items() if not owner]
    if strays:
        time.sleep(_SETTLES_S)
        again, _ = _owners(lists, text)
        strays = [each for each in strays if not again.get(each, "gone")]
    causes = Counter(owner for owner in owners.values() if owner not in ("", "kernel"))
    found = tuple(_difference(each) for each in strays[:_MOST])
    limits = (*([f"lists of {', '.join(unknown)}: this kernel does not tell"] if unknown else []), _ELSE)
    size = 8 * len(owners)
    reference = _REFERENCE if size else ""
    yield Check("lists of functions", size, reference, dict(causes), found, len(strays) - len(found), limits)


def _owners(lists: FunctionLists, text: range) -> tuple[dict[Entry, str], list[str]]:
    """Whose each function is: empty where it is nobody's."""
    before = named_ranges()
    entries, unknown = lists.entries()
    modules = {*before, *named_ranges()}
    generated = read_lists(kallsyms_text(KALLSYMS))
    return {each: _owner(each.function, text, modules) or generated.kind(each.function) for each in entries}, unknown


def _owner(function: int, text: range, modules: Iterable[tuple[str, range]]) -> str:
    if function in text:
        return "kernel"
    return next((f"module {name}" for name, place in modules if function in place), "")


def _difference(entry: Entry) -> Difference:
    return Difference(entry.address, entry.list, "", f"{entry.function:x}", f"{entry.function:#x}, which is nobody's")
