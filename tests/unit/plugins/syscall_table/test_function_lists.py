"""The kernel's lists of functions, walked in memory that a test made."""

import errno
import struct
from pathlib import Path

import pytest
from krie import KernelMemory
from krie.plugins.syscall_table import pending, walker
from krie.plugins.syscall_table.lists import FIELDS, SIZES, FunctionLists

BASE = 0xFFFF888000000000
F = 0xFFFFFFFF81000000
"""Where functions lie."""
OFFSETS: dict[tuple[str, str], int | None] = {
    ("kprobe", "hlist"): 0,
    ("kprobe", "list"): 16,
    ("kprobe", "pre_handler"): 32,
    ("kprobe", "post_handler"): 40,
    ("kretprobe", "kp"): 0,
    ("kretprobe", "handler"): 48,
    ("kretprobe", "entry_handler"): 56,
    ("timer_base", "vectors"): 16,
    ("timer_list", "entry"): 0,
    ("timer_list", "function"): 24,
    ("delayed_work", "timer"): 32,
    ("delayed_work", "work"): 0,
    ("work_struct", "entry"): 8,
    ("work_struct", "func"): 24,
    ("worker_pool", "worklist"): 8,
    ("worker_pool", "workers"): 24,
    ("worker_pool", "hash_node"): 40,
    ("worker", "node"): 32,
    ("worker", "current_func"): 24,
    ("#timer_base", ""): 32,
    ("#timer_base", "vectors"): 16,
    ("#worker_pool", ""): 64,
    ("#variable", "timer_bases"): 64,
    ("#variable", "cpu_worker_pools"): 64,
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
    ("hrtimer_cpu_base", "clock_base"): 16,
    ("#hrtimer_cpu_base", "clock_base"): 64,
    ("#hrtimer_clock_base", ""): 32,
    ("hrtimer_clock_base", "active"): 8,
    ("hrtimer", "node"): 0,
    ("hrtimer", "function"): 40,
    ("task_struct", "tasks"): 16,
    ("task_struct", "flags"): 0,
    ("task_struct", "worker_private"): 32,
    ("task_struct", "set_child_tid"): 40,
    ("kthread", "threadfn"): 24,
    ("linux_binfmt", "lh"): 0,
    ("linux_binfmt", "load_binary"): 24,
    ("linux_binfmt", "load_shlib"): None,
    ("linux_binfmt", "core_dump"): 32,
    ("security_hook_list", "list"): 0,
    ("security_hook_list", "hook"): 24,
    ("#security_hook_heads", ""): 16,
}
ALL = [
    "notifiers",
    "tracers",
    "tracepoints",
    "packet filters",
    "kprobes",
    "timers",
    "work items",
    "high-resolution timers",
    "kernel threads",
    "binary formats",
    "security hooks",
]


class Kernel:
    """Words of memory, by their addresses; all others are 0."""

    def __init__(self) -> None:
        self.content = bytearray(0x10000)
        self.symbols: dict[str, int] = {}
        self.window = bytearray(4096)
        self.unknown: list[str] = []
        self.heads: set[int] = set()
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
        lists = FunctionLists(self.memory, lambda name: self.symbols.get(name, 0), OFFSETS, self.heads)
        entries, unknown = lists.entries()
        self.unknown = unknown
        by_name: dict[str, list[int]] = {}
        for each in entries:
            assert int.from_bytes(self.memory.read(each.address, 8), "little") == each.function
            by_name.setdefault(each.list, []).append(each.function)
        return by_name, unknown


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(walker, "possible", lambda: [0, 1])
    return Kernel()


def test_the_fields_are_those_that_are_asked_for() -> None:
    assert set(FIELDS) == {key for key in OFFSETS if not key[0].startswith("#")}
    assert {(f"#{name}", path) for name, path in SIZES} | {
        ("#variable", name) for name in pending.VARIABLES
    } == OFFSETS.keys() - set(FIELDS)


def test_notifiers(kernel: Kernel) -> None:
    kernel.symbols = {"module_notify_list": BASE, "netdev_chain": BASE + 0x100, "die_chain": BASE + 0x200}
    kernel.put(40, kernel.put(0x1000, F + 0x11, kernel.put(0x1100, F + 0x12, 0)))
    kernel.put(0x100, kernel.put(0x1200, F + 0x13, 0))
    found, unknown = kernel.found()
    assert found == {"module_notify_list": [F + 0x11, F + 0x12], "netdev_chain": [F + 0x13]}
    assert unknown == [each for each in ALL if each != "notifiers"]


def test_tracers(kernel: Kernel) -> None:
    kernel.symbols = {"ftrace_ops_list": BASE + 0x100, "ftrace_list_end": BASE + 0x200}
    kernel.put(0x200, F + 0x30, 0)
    kernel.put(0x100, kernel.put(0x1200, F + 0x31, BASE + 0x200))
    found, unknown = kernel.found()
    assert found == {"ftrace_ops_list": [F + 0x30, F + 0x31]}
    assert unknown == [each for each in ALL if each != "tracers"]


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


def test_a_machine_without_a_filter(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one that comes is told, so that none is not the same as not known."""
    kernel.symbols = {"init_net": BASE}
    assert "packet filters" not in kernel.found()[1]
    monkeypatch.setitem(OFFSETS, ("net", "nf.hooks_ipv4"), None)
    assert "packet filters" in kernel.found()[1]


def test_kprobes(kernel: Kernel) -> None:
    kernel.symbols = {"kprobe_table": BASE, "pre_handler_kretprobe": F + 0x70}
    several, returns = BASE + 0x1000, BASE + 0x1200
    kernel.put(8 * 3, kernel.put(0x1000, returns, 0, BASE + 0x1110, BASE + 0x1110, F + 0x71, 0))
    kernel.put(0x1100, 0, 0, several + 16, 0, F + 0x72, F + 0x73)
    kernel.put(0x1200, 0, 0, returns + 16, 0, F + 0x70, 0, F + 0x74, F + 0x75)
    found, unknown = kernel.found()
    assert found == {"kprobes": [F + 0x71, F + 0x72, F + 0x73, F + 0x70, F + 0x74, F + 0x75]}
    assert "kprobes" not in unknown


def test_a_kernel_without_a_kprobe_or_work(kernel: Kernel) -> None:
    kernel.symbols = {"kprobe_table": BASE, "__per_cpu_offset": BASE + 0x800, "cpu_worker_pools": BASE + 0x900}
    kernel.found()
    assert kernel.unknown == [each for each in ALL if each not in ("kprobes", "work items")]


def test_timers_and_delayed_work(kernel: Kernel) -> None:
    kernel.symbols = {"__per_cpu_offset": BASE, "timer_bases": BASE + 0x100, "delayed_work_timer_fn": F + 0x80}
    kernel.put(0, 0, 0x1000)  # of two CPUs
    plain = kernel.put(0x3000, 0, 0, 0, F + 0x81)
    delayed = kernel.put(0x3120, plain, 0, 0, F + 0x80)
    kernel.put(0x3100 + 24, F + 0x82)
    kernel.put(0x110, 0, delayed)  # the first base of the first CPU
    freed = kernel.put(0x3200, 0xDEAD000000000122, 0, 0, 0x1234)
    kernel.put(0x1100 + 32 + 16, freed)  # the second one of the second CPU
    found, unknown = kernel.found()
    assert found == {"delayed work": [F + 0x82], "timers": [F + 0x81]}
    assert "timers" not in unknown


def test_work_that_is_queued_or_runs(kernel: Kernel) -> None:
    kernel.symbols = {
        "__per_cpu_offset": BASE,
        "cpu_worker_pools": BASE + 0x100,
        "unbound_pool_hash": BASE + 0x400,
    }
    kernel.put(8, 0x8000)  # the second CPU has none
    for number, pool in enumerate((0x100, 0x800)):
        work, busy, idle = (pool + 0x2000 + 0x100 * each for each in range(3))
        kernel.put(pool + 8, BASE + work + 8, 0, BASE + busy + 32, 0)
        kernel.put(work + 8, BASE + pool + 8, 0, F + 0xA1 + 0x10 * number)
        kernel.put(busy + 24, F + 0xA2 + 0x10 * number, BASE + idle + 32)
        kernel.put(idle + 24, 0, BASE + pool + 24)
    kernel.put(0x400 + 8 * 5, BASE + 0x800 + 40)
    found, _ = kernel.found()
    assert found == {"work items": [F + 0xA1, F + 0xA2, F + 0xB1, F + 0xB2]}


def test_work_that_begins_or_moves_meanwhile_is_seen_once(kernel: Kernel) -> None:
    """What begins leads to itself from then on (list_del_init()), and what moves to a list with another end."""
    kernel.symbols = {"__per_cpu_offset": BASE, "cpu_worker_pools": BASE + 0x100, "unbound_pool_hash": BASE + 0x400}
    kernel.put(8, 0x8000)
    for pool, leads_to in ((0x100, 0x2000), (0x800, 0x4000)):
        kernel.put(pool + 8, BASE + 0x2000 + pool + 8, 0, BASE + pool + 24)
        kernel.put(0x2000 + pool + 8, BASE + leads_to + pool + 8, 0, F + pool)
    kernel.put(0x400 + 8 * 5, BASE + 0x800 + 40)
    kernel.put(0x4808, BASE + 0x2808, 0, F + 0x42)
    found, unknown = kernel.found()
    assert found == {"work items": [F + 0x100, F + 0x800, F + 0x42]}
    assert "work items" not in unknown


def test_timers_of_high_resolution(kernel: Kernel) -> None:
    kernel.symbols = {"__per_cpu_offset": BASE, "hrtimer_bases": BASE + 0x100}
    kernel.put(8, 0x1000)  # of two CPUs
    least = kernel.put(0x3000, 0, 0, 0, 0, 0, F + 0xC1)
    most = kernel.put(0x3100, 0, 0, 0, 0, 0, F + 0xC2)
    top = kernel.put(0x3200, 0, most, least, 0, 0, F + 0xC3)
    kernel.put(0x110 + 8, top)
    kernel.put(0x3108, top)  # where the tree was turned meanwhile
    kernel.put(0x1110 + 32 + 8, kernel.put(0x3300, 0, 0x1234, 0, 0, 0, F + 0xC4))  # it leads nowhere
    found, unknown = kernel.found()
    assert found == {"high-resolution timers": [F + 0xC3, F + 0xC1, F + 0xC2, F + 0xC4]}
    assert "high-resolution timers" not in unknown


@pytest.mark.parametrize("private", ["worker_private", "set_child_tid"])
def test_kernel_threads(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, private: str) -> None:
    if private == "set_child_tid":
        monkeypatch.setitem(OFFSETS, ("task_struct", "worker_private"), None)
    at = OFFSETS["task_struct", private]
    assert at is not None
    kernel.symbols = {"init_task": BASE + 0x100}
    tasks = (0x100, 0x200, 0x300, 0x400)
    for task, following in zip(tasks, (*tasks[1:], tasks[0]), strict=True):
        kernel.put(task, 0x0020_0000)
        kernel.put(task + 16, BASE + following + 16)
    kernel.put(0x200, 0)  # a process
    kernel.put(0x200 + at, kernel.put(0x1000, 0, 0, 0, F + 0xD1))
    kernel.put(0x300 + at, kernel.put(0x1100, 0, 0, 0, F + 0xD2))
    found, unknown = kernel.found()
    assert found == {"kernel threads": [F + 0xD2]}  # 0x400 has no struct kthread
    assert "kernel threads" not in unknown


def test_formats_of_programs(kernel: Kernel) -> None:
    head, known, entered = BASE + 0x100, BASE + 0x200, BASE + 0x300
    kernel.symbols, kernel.heads = {"script_format": known}, {head, BASE + 0x900}
    kernel.put(0x100, known, entered, 0, 0x1234)
    kernel.put(0x200, entered, head, 0, F + 0xE1, 0)
    kernel.put(0x300, head, known, 0, F + 0xE2, F + 0xE3)
    found, unknown = kernel.found()
    assert found == {"binary formats": [F + 0xE1, F + 0xE2, F + 0xE3]}
    assert "binary formats" not in unknown
    kernel.heads = {BASE + 0x900}
    found, unknown = kernel.found()
    assert found == {}
    assert "binary formats" in unknown


def test_processors_that_there_may_be(tmp_path: Path) -> None:
    place = tmp_path / "possible"
    for text, expected in (("0\n", [0]), ("0-3\n", [0, 1, 2, 3]), ("0,2-3\n", [0, 2, 3])):
        place.write_text(text)
        assert walker.possible(place) == expected


def test_a_list_that_does_not_end_or_leads_nowhere_is_not_looked_at(kernel: Kernel) -> None:
    kernel.symbols = {"module_notify_list": BASE, "init_net": BASE + 0x100}
    kernel.put(40, kernel.put(0x1000, F + 0x11, BASE + 0x1000))
    kernel.put(0x100 + 16, 0x1234)
    kernel.symbols["ftrace_ops_list"], kernel.symbols["ftrace_list_end"] = BASE + 0x200, BASE + 0x300
    kernel.put(0x300, 0x1234)  # no function
    found, unknown = kernel.found()
    assert found == {}
    assert {"notifiers", "packet filters", "tracers"} <= set(unknown)


def test_hooks_of_security_modules(kernel: Kernel) -> None:
    second = kernel.put(0x200, 0, 0, 0, F + 2)
    first = kernel.put(0x100, second, 0, 0, F + 1)
    kernel.symbols["security_hook_heads"] = kernel.put(0x10, first, kernel.put(0x300, 0, 0, 0, F + 3))
    found, unknown = kernel.found()
    assert found["security hooks"] == [F + 1, F + 2, F + 3]
    assert "security hooks" not in unknown


def test_kernels_without_lists_of_hooks(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OFFSETS, ("security_hook_list", "list"), None)
    assert "security hooks" not in kernel.found()[1]
