"""The kernel's lists of functions, walked in memory that a test made; and modules, as /proc/modules has them."""

import errno
import struct
from pathlib import Path

import pytest
from krie import KernelMemory
from krie.plugins.syscall_table import modules
from krie.plugins.syscall_table.areas import module_functions
from krie.plugins.syscall_table.kallsyms import addresses_in
from krie.plugins.syscall_table.lists import FIELDS, FunctionLists
from krie.plugins.syscall_table.modules import Module, extents_of

BASE = 0xFFFF888000000000
F = 0xFFFFFFFF81000000
"""Where functions lie."""
OFFSETS: dict[tuple[str, str], int | None] = {
    ("notifier_block", "notifier_call"): 0,
    ("notifier_block", "next"): 8,
    ("atomic_notifier_head", "head"): 8,
    ("blocking_notifier_head", "head"): 40,
    ("raw_notifier_head", "head"): 0,
    ("ftrace_ops", "func"): 0,
    ("ftrace_ops", "next"): 8,
    ("tracepoint", "funcs"): 64,
    ("nf_hook_entries", "hooks"): 8,
    ("net", "nf.hooks_ipv4"): 16,
    ("net", "nf.hooks_ipv6"): None,
    ("net", "nf.hooks_arp"): None,
    ("net", "nf.hooks_bridge"): None,
}


class Kernel:
    """Words of memory, by their addresses; all others are 0."""

    def __init__(self) -> None:
        self.content = bytearray(0x10000)
        self.symbols: dict[str, int] = {}
        self.window = bytearray(4096)
        self.memory = KernelMemory(0, self.window, self._read)

    def _read(self, _program: int, arguments: tuple[int, ...]) -> int:
        address, size = arguments
        if not BASE <= address <= address + size <= BASE + len(self.content):
            return -errno.EFAULT
        self.window[:size] = self.content[address - BASE : address - BASE + size]
        return 0

    def put(self, offset: int, *words: int) -> int:
        struct.pack_into(f"={len(words)}Q", self.content, offset, *words)
        return BASE + offset

    def found(self) -> tuple[dict[str, list[int]], list[str]]:
        lists = FunctionLists(self.memory, lambda name: self.symbols.get(name, 0), OFFSETS)
        entries, unknown = lists.entries()
        by_name: dict[str, list[int]] = {}
        for each in entries:
            assert int.from_bytes(self.memory.read(each.address, 8), "little") == each.function
            by_name.setdefault(each.list, []).append(each.function)
        return by_name, unknown


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def test_the_fields_are_those_that_are_asked_for() -> None:
    assert set(FIELDS) == OFFSETS.keys()


def test_notifiers(kernel: Kernel) -> None:
    kernel.symbols = {"module_notify_list": BASE, "netdev_chain": BASE + 0x100, "die_chain": BASE + 0x200}
    kernel.put(40, kernel.put(0x1000, F + 0x11, kernel.put(0x1100, F + 0x12, 0)))
    kernel.put(0x100, kernel.put(0x1200, F + 0x13, 0))
    found, unknown = kernel.found()
    assert found == {"module_notify_list": [F + 0x11, F + 0x12], "netdev_chain": [F + 0x13]}
    assert unknown == ["tracers", "tracepoints", "packet filters"]


def test_tracers(kernel: Kernel) -> None:
    kernel.symbols = {"ftrace_ops_list": BASE + 0x100, "ftrace_list_end": BASE + 0x200}
    kernel.put(0x200, F + 0x30, 0)
    kernel.put(0x100, kernel.put(0x1200, F + 0x31, BASE + 0x200))
    found, unknown = kernel.found()
    assert found == {"ftrace_ops_list": [F + 0x30, F + 0x31]}
    assert unknown == ["notifiers", "tracepoints", "packet filters"]


def test_tracepoints(kernel: Kernel) -> None:
    table, points = BASE, (BASE + 0x2000, BASE + 0x2050)
    kernel.symbols = {"__start___tracepoints_ptrs": table, "__stop___tracepoints_ptrs": table + 8}
    offsets = [point - table - 4 * index for index, point in enumerate(points)]
    kernel.content[:8] = struct.pack("=2i", *offsets)
    kernel.put(0x2050 + 64, kernel.put(0x3000, F + 0x41, 0, 0, F + 0x42, 0, 0, 0))
    found, unknown = kernel.found()
    assert found == {"tracepoints": [F + 0x41, F + 0x42]}
    assert "tracepoints" not in unknown


def test_filters(kernel: Kernel) -> None:
    kernel.symbols = {"init_net": BASE}
    entries = kernel.put(0x1000, 2, F + 0x51, 0, F + 0x52, 0)
    kernel.put(16 + 8 * 3, entries)
    assert kernel.found()[0] == {"hooks_ipv4[3]": [F + 0x51, F + 0x52]}


def test_a_list_that_does_not_end_or_leads_nowhere_is_not_looked_at(kernel: Kernel) -> None:
    kernel.symbols = {"module_notify_list": BASE, "init_net": BASE + 0x100}
    kernel.put(40, kernel.put(0x1000, F + 0x11, BASE + 0x1000))
    kernel.put(0x100 + 16, 0x1234)
    kernel.symbols["ftrace_ops_list"], kernel.symbols["ftrace_list_end"] = BASE + 0x200, BASE + 0x300
    kernel.put(0x300, 0x1234)  # no function
    found, unknown = kernel.found()
    assert found == {}
    assert {"notifiers", "packet filters", "tracers"} <= set(unknown)


KALLSYMS = """\
ffffffff81000000 T _stext
ffffffff81000040 D module_notify_list
ffffffffc0001010 t begin\t[one]
ffffffffc0003000 t end\t[one]
ffffffffc0009000 t init\t[one]
ffffffffc0020000 t prog\t[bpf]
ffffffffc0001018 d data\t[one]
ffffffff81000080 d formats
ffffffff810000c0 d formats
"""


def test_modules_reach_from_their_first_function_to_their_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "modules"
    place.write_text(
        "one 20480 0 - Live 0xffffffffc0001000\nkrie_gone 4096 1 one, Live 0xffffffffc0100000\n"
        "two 4096 0 - Loading 0xffffffffc0200000 (OE)\n"
    )
    monkeypatch.setattr(modules, "_MODULES", place)
    monkeypatch.setattr(modules, "_FOLDER", tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (found,) = modules.loaded()
    assert found == Module("one", 0xFFFFFFFFC0001000, 20480, (tmp_path / "one").stat().st_ino)
    assert [(each.start, len(each)) for each in modules.ranges()] == [
        (0xFFFFFFFFC0001000, 20480),
        (0xFFFFFFFFC0100000, 4096),
        (0xFFFFFFFFC0200000, 4096),
    ]
    functions = module_functions(KALLSYMS.encode())
    assert [name for _, name in functions["one"]] == ["begin", "end", "init"]
    assert extents_of([found], functions) == {found: range(0xFFFFFFFFC0001000, 0xFFFFFFFFC0004000)}
    place.unlink()
    assert (list(modules.loaded()), modules.ranges()) == ([], [])


def test_addresses_are_the_kernels_own_and_of_one_symbol() -> None:
    address = addresses_in(KALLSYMS.encode(), ("_stext", "module_notify_list", "begin", "formats"))
    assert [address(each) for each in ("_stext", "module_notify_list", "begin", "formats")] == [
        0xFFFFFFFF81000000,
        0xFFFFFFFF81000040,
        0,
        0,
    ]
