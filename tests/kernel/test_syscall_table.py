"""What leads a system call away from the kernel is told, once, with whose code it leads to; and so is its undoing."""

import ctypes
import errno
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from krie.plugins.syscall_table.control import field_offset
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule, address_of
from krie.testing.patience import PATIENCE_S

from .quiet_tracers import TRACEFS, fprobes, handlers, live_patch

HOOK, WRAPPED, ACTIVITY = "syscall_table.hook", "syscall_table.wrapped", "syscall_table.activity"
MODULE = "krie_test"
PLUGIN = {"syscall_table": {"code": False}}
"""Code as a whole is the subject of test_syscall_table_code.py; to compare it takes guests long."""
RARE = "sysfs"
"""A system call that nobody makes meanwhile."""
_SLOT = 8
_BREAKPOINT = 3


@pytest.fixture(scope="module")
def watching(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("agent")
    folder.chmod(0o700)
    with RunningAgent(folder, plugins=PLUGIN, agent={"scan_interval_s": 5}) as agent:
        yield agent


def number_of(call: str) -> int:
    from krie.kernel.syscalls import numbers_of

    return numbers_of(call).native[0]


def function_bytes(name: str) -> tuple[int, bytes]:
    """Where a function begins, and its bytes. By /proc/kcore, which is another way than the agent's."""
    from krie.kernel.symbols import functions

    extent = functions({name})[name]
    return extent.start, read_memory(extent.start, len(extent))


def read_memory(address: int, size: int) -> bytes:
    with Path("/proc/kcore").open("rb") as core:
        header = core.read(64)
        offset, count = struct.unpack_from("=Q", header, 32)[0], struct.unpack_from("=H", header, 56)[0]
        core.seek(offset)
        for _ in range(count):
            _, _, file, start, _, length, *_ = struct.unpack("=IIQQQQQQ", core.read(56))
            if start <= address and address + size <= start + length:
                core.seek(file + address - start)
                return core.read(size)
    raise OSError(address)


def jump_to(handler: str, lacks: Callable[[str], NoReturn]) -> int:
    """Where the switch leads to a handler."""
    from krie.plugins.syscall_table.switch import read_switch

    try:
        address_of("x64_sys_call")
    except KeyError:
        lacks("switch: this kernel dispatches by its table")
    start, code = function_bytes("x64_sys_call")
    target = address_of(handler)
    (jump,) = read_switch(start, code, {target}, range(0)).jumps
    return jump.address


class Hooks:
    """Lines that come while something is done."""

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent
        agent.settle()
        self._before = len(agent.lines(HOOK))

    def expect(self, count: int) -> list[Line]:
        """So many more, and no other for two looks of the timer."""
        self._agent.wait(HOOK, count=self._before + count)
        self.pass_time()
        lines = self._agent.lines(HOOK)[self._before :]
        assert len(lines) == count, [line["event"] for line in lines]
        self._before += count
        return lines

    def pass_time(self) -> None:
        """Two more scans, between which the timer has looked."""
        told = len(self._agent.lines(ACTIVITY))
        lines = self._agent.wait(ACTIVITY, count=told + 1)
        assert lines[-1]["event"]["looks"] > 0

    def none(self) -> None:
        self.pass_time()
        lines = self._agent.lines(HOOK)[self._before :]
        assert not lines, [line["event"] for line in lines]


def of(line: Line, *names: str) -> tuple[Any, ...]:
    return tuple(line["event"][name] for name in names)


def rules_of(line: Line) -> set[str]:
    return {each["id"] for each in line["decision"]["rules"]}


def diversion(what: str, how: str, lacks: Callable[[str], NoReturn]) -> tuple[str, int, int, int]:
    """Words of a command that leads a rare system call to the module: where, what it leads to now, and text_poke()."""
    if (what, how) == ("table", "poke") and tuple(map(int, os.uname().release.split(".")[:2])) < (5, 13):
        lacks("poked_data: text_poke() of this kernel finds no page of data in large ones (c0eb315ad971)")
    handler = f"__x64_sys_{RARE}"
    address = {
        "table": lambda: address_of("sys_call_table") + _SLOT * number_of(RARE),
        "jump": lambda: jump_to(handler, lacks),
        "tail": lambda: jump_to(handler, lacks),
        "inline": lambda: address_of(handler),
    }[what]()
    return f"divert {what} {how}", address, address_of(handler), address_of("text_poke")


WHERE = {"table": "table", "jump": "dispatch", "tail": "dispatch", "inline": "handler"}
TRIGGER = {"force": "timer", "alias": "alias", "poke": "text_poke"}


@pytest.mark.needs("perf_event")
def test_looks_are_taken_and_an_untouched_system_is_silent(watching: RunningAgent) -> None:
    """Also here: what is looked at depends on the kernel, and is said."""
    (line,) = watching.wait(ACTIVITY, lambda line: line["event"]["looks"] > 1)[:1]
    assert line["event"]["places"] > 700
    assert line["event"]["unreadable"] == 0
    assert watching.lines(HOOK) == []


@pytest.mark.needs("test_module", "kretprobe")
@pytest.mark.parametrize("how", TRIGGER)
@pytest.mark.parametrize("what", WHERE)
def test_a_diversion_is_told_once_and_so_is_its_end(
    watching: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn], what: str, how: str
) -> None:
    hooks = Hooks(watching)
    with test_module.effect(*diversion(what, how, lacks)):
        (line,) = hooks.expect(1)
        assert of(line, "where", "abi", "trigger", "restored") == (WHERE[what], "x64", TRIGGER[how], False)
        assert of(line, "owner", "syscall", "explained") == (MODULE, RARE, "")
        if what != "inline":
            function = "krie_test_tail" if what == "tail" else "krie_test_wrapper"
            assert of(line, "number", "target") == (number_of(RARE), "module")
            assert line["event"]["symbol"] == f"{function}+0x0 [{MODULE}]"
            assert line["event"]["was_symbol"] == f"__x64_sys_{RARE}"
        caught = TRIGGER[how] != "timer"
        if caught:
            assert line["process"]["tgid"] == os.getpid()
        expected = {"SYSCALL003"} if what == "inline" else {"SYSCALL001", *({"SYSCALL002"} if caught else set())}
        assert rules_of(line) == expected
    (line,) = hooks.expect(1)
    assert of(line, "where", "restored") == (WHERE[what], True)
    assert rules_of(line) == {"SYSCALL007"}


@pytest.mark.needs("test_module", "raw_tracepoint")
@pytest.mark.parametrize("what", ["table", "jump", "inline"])
def test_a_module_that_diverts_at_its_start_is_told_before_insmod_returns(
    watching: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn], what: str
) -> None:
    words, *numbers = diversion(what, "force", lacks)
    test_module.unload()
    hooks = Hooks(watching)
    parameter = " ".join([*words.split()[1:], *(f"{each:x}" for each in numbers)])
    insmod = subprocess.Popen(["insmod", str(test_module.file), f'diverted="{parameter}"'])
    assert insmod.wait(60) == 0
    (line,) = hooks.expect(1)
    assert of(line, "where", "trigger", "owner") == (WHERE[what], "module_init", MODULE)
    assert line["process"]["tgid"] == insmod.pid
    test_module.unload()
    (line,) = hooks.expect(1)
    assert line["event"]["restored"]
    test_module.load()  # which the fixture unloads


@pytest.mark.needs("test_module", "kprobe")
def test_a_wrapped_handler_is_told_at_its_first_use(
    watching: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn]
) -> None:
    handler = "__x64_sys_kill"
    try:
        what, address = "jump", jump_to(handler, lambda _: pytest.fail("table"))
    except pytest.fail.Exception:
        what, address = "table", address_of("sys_call_table") + _SLOT * number_of("kill")
    before = len(watching.lines(WRAPPED))
    hooks = Hooks(watching)
    os.kill(os.getpid(), 0)
    with test_module.effect(f"divert {what} force", address, address_of(handler), 0):
        for _ in range(3):
            os.kill(os.getpid(), 0)
        watching.wait(WRAPPED, count=before + 1)
        watching.settle()
        (line,) = watching.lines(WRAPPED)[before:]
        hooks.expect(1)
    assert of(line, "number", "abi", "target", "owner", "syscall") == (
        number_of("kill"),
        "x64",
        "module",
        MODULE,
        "kill",
    )
    assert line["process"]["tgid"] == os.getpid()
    assert rules_of(line) == {"SYSCALL006"}
    hooks.expect(1)


@pytest.mark.needs("test_module", "perf_event")
def test_a_gate_of_the_interrupt_table(
    watching: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn]
) -> None:
    try:
        table = address_of("idt_table")
    except KeyError:
        lacks("idt_table: its address is not told")
    gate = read_memory(table + 16 * _BREAKPOINT, 16)
    other = read_memory(table + 16 * 4, 16)
    hooks = Hooks(watching)
    with test_module.effect("write", table + 16 * _BREAKPOINT, other[:2].hex()):  # nothing breaks meanwhile
        (line,) = hooks.expect(1)
        assert of(line, "where", "number") == ("idt", _BREAKPOINT)
        assert rules_of(line) == {"SYSCALL003"}
        assert line["event"]["bytes_was"] != line["event"]["bytes_now"]
    assert read_memory(table + 16 * _BREAKPOINT, 16) == gate
    (line,) = hooks.expect(1)
    assert of(line, "where", "number", "restored") == ("idt", _BREAKPOINT, True)


@pytest.mark.needs("test_module", "perf_event")
def test_a_pointer_of_the_shipped_list(watching: RunningAgent, test_module: TestModule) -> None:
    # The third pointer of struct seq_operations, `next`, of a file that nobody reads meanwhile: /proc/net/udp.
    address = address_of("udp_seq_ops") + 2 * _SLOT
    hooks = Hooks(watching)
    with test_module.effect("write", address, struct.pack("=Q", address_of("krie_test_wrapper")).hex()):
        (line,) = hooks.expect(1)
        assert of(line, "where", "target", "owner", "place") == ("pointer", "module", MODULE, "udp_seq_ops+0x10")
        assert rules_of(line) == {"SYSCALL004"}
    (line,) = hooks.expect(1)
    assert of(line, "where", "restored") == ("pointer", True)


@pytest.mark.needs("test_module", "perf_event")
def test_the_register_by_which_system_calls_enter(
    watching: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn]
) -> None:
    if subprocess.run(["modprobe", "msr"], capture_output=True).returncode:
        lacks("msr: no module shows the processor's registers")
    hooks = Hooks(watching)
    hooks.none()  # a scan has read them
    with test_module.effect("entry"):
        (line,) = hooks.expect(1)
        assert of(line, "where", "target", "owner", "trigger") == ("register", "other", MODULE, "scan")
        assert of(line, "place", "was") == ("LSTAR", f"{address_of('entry_SYSCALL_64'):#x}")
        assert rules_of(line) == {"SYSCALL003"}
    (line,) = hooks.expect(1)
    assert of(line, "where", "restored") == ("register", True)


@pytest.mark.needs("test_module")
def test_the_kernels_copy_of_a_control_register(
    watching: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn]
) -> None:
    """One pinned bit is cleared in it: what the kernel pins never reaches the register itself."""
    try:
        copies, first_cpu, pinned = map(address_of, ("cpu_tlbstate", "__per_cpu_offset", "cr4_pinned_bits"))
    except KeyError:
        lacks("cpu_tlbstate: its address is not told")
    (bits,) = struct.unpack("=Q", read_memory(pinned, 8))
    offset = field_offset()
    if not bits or offset is None:
        lacks("cr4_pinned_bits: this kernel pins no bit of CR4")
    byte, bit = divmod((bits & -bits).bit_length() - 1, 8)
    (cpu_offset,) = struct.unpack("=Q", read_memory(first_cpu, 8))
    address = (copies + cpu_offset + offset + byte) & 0xFFFF_FFFF_FFFF_FFFF
    hooks = Hooks(watching)
    with test_module.effect("write", address, f"{read_memory(address, 1)[0] & ~(1 << bit):02x}"):
        (line,) = hooks.expect(1)
        assert of(line, "where", "target", "number", "owner") == ("register", "none", 0, "")
        assert line["event"]["place"] == "CR4, as the kernel remembers it"
        assert int(line["event"]["was"], 16) & ~int(line["event"]["now"], 16) == 1 << 8 * byte + bit
        assert rules_of(line) == {"SYSCALL003"}
    (line,) = hooks.expect(1)
    assert of(line, "where", "restored") == ("register", True)


@pytest.mark.needs("guest", "kprobe")
def test_tracers_are_silent(watching: RunningAgent) -> None:
    tracefs = Path("/sys/kernel/tracing")
    hooks = Hooks(watching)
    (tracefs / "current_tracer").write_text("function")  # of all functions
    hooks.pass_time()
    (tracefs / "current_tracer").write_text("nop")
    events = tracefs / "kprobe_events"
    names = [f"__x64_sys_{call}" for call in (RARE, "kill", "getpid", "openat")]
    events.write_text("".join(f"p:krie_quiet/{each} {each}\nr:krie_quiet/r{each} {each}\n" for each in names))
    (tracefs / "events/krie_quiet/enable").write_text("1")
    hooks.pass_time()
    (tracefs / "events/krie_quiet/enable").write_text("0")
    events.write_text("\n")
    hooks.none()


@pytest.mark.needs("guest", "kprobe")
def test_fprobes_on_all_handlers_are_silent(watching: RunningAgent, lacks: Callable[[str], NoReturn]) -> None:
    hooks = Hooks(watching)
    with fprobes(handlers(), lacks):
        assert (TRACEFS / "enabled_functions").read_text().count("__x64_sys_") > 200
        hooks.pass_time()
    hooks.none()


@pytest.mark.needs("guest")
def test_a_live_patch_of_a_system_call_is_silent(watching: RunningAgent, lacks: Callable[[str], NoReturn]) -> None:
    hooks = Hooks(watching)
    with live_patch(lacks):
        assert ctypes.CDLL(None, use_errno=True).syscall(number_of(RARE), 3) == -1
        assert ctypes.get_errno() == errno.EXFULL
        hooks.pass_time()
    hooks.none()


@pytest.mark.needs("test_module", "kprobe")
def test_a_kprobe_inside_a_handler_is_explained(watching: RunningAgent, test_module: TestModule) -> None:
    start = address_of(f"__x64_sys_{RARE}")
    watching.settle()
    before = len(watching.lines(HOOK))
    restored = len(watching.lines(HOOK, lambda line: line["event"]["restored"]))
    for offset in range(5, 24):
        try:
            with test_module.effect("kprobe", start + offset):
                watching.wait(HOOK, count=before + 1)
                Hooks(watching).pass_time()  # the kernel may put a jump in the breakpoint's place
            break
        except OSError:
            continue
    else:
        pytest.fail("no instruction of the handler can be probed")
    watching.wait(HOOK, lambda line: line["event"]["restored"], count=restored + 1)
    Hooks(watching).pass_time()
    *lines, last = watching.lines(HOOK)[before:]
    for line in lines:
        assert of(line, "where", "explained", "syscall") == ("handler", "kprobe", RARE)
        assert rules_of(line) == set()
    assert last["event"]["restored"]


@pytest.mark.needs("test_module")
def test_modules_that_come_and_go_are_silent(watching: RunningAgent, test_module: TestModule) -> None:
    hooks = Hooks(watching)
    for _ in range(10):
        test_module.unload()
        test_module.load()
    hooks.none()


@pytest.mark.needs("test_module", "kretprobe")
def test_a_system_that_was_hooked_before_is_told(
    alone: None, test_module: TestModule, lacks: Callable[[str], NoReturn], tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    words = [diversion(what, "force", lacks) for what in ("table", "jump", "inline")]
    with (
        test_module.effect(*words[0]),
        test_module.effect(*words[1]),
        test_module.effect(*words[2]),
        RunningAgent(tmp_path, plugins=PLUGIN, agent={"scan_interval_s": 5}) as agent,
    ):
        agent.wait(HOOK, count=3)
        agent.wait(ACTIVITY, count=2)
        lines = {line["event"]["where"]: line for line in agent.lines(HOOK)}
        assert len(agent.lines(HOOK)) == 3
        assert set(lines) == {"table", "dispatch", "handler"}
        for line in lines.values():
            assert of(line, "trigger", "owner", "number") == ("start", MODULE, number_of(RARE))


_LOAD = """
import ctypes, os, sys, time
FINIT_MODULE = 313
assert ctypes.CDLL(None).syscall(FINIT_MODULE, os.open(sys.argv[1], os.O_RDONLY), sys.argv[2].encode(), 0) == 0
time.sleep(300)
"""


@pytest.mark.needs("test_module", "raw_tracepoint", "kprobe")
def test_who_is_caught_is_killed_where_that_is_enforced(
    alone: None, test_module: TestModule, lacks: Callable[[str], NoReturn], tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    words, *numbers = diversion("table", "force", lacks)
    parameter = " ".join([*words.split()[1:], *(f"{each:x}" for each in numbers)])
    test_module.unload()
    load = [sys.executable, "-c", _LOAD, str(test_module.file), f'diverted="{parameter}"']
    with RunningAgent(tmp_path, plugins={"syscall_table": {"mode": "enforce", "code": False}}) as agent:
        loader = subprocess.Popen(load)  # insmod has ended before user space decides
        assert loader.wait(PATIENCE_S) == -signal.SIGKILL
        (line,) = agent.wait(HOOK)
        assert line["process"]["tgid"] == loader.pid
        assert {"killed", "signalled"} & set(line["done"])  # it may take its time to end
        assert {"SYSCALL001", "SYSCALL002"} <= rules_of(line)
        test_module.unload()
        test_module.load()  # which diverts nothing, and is nobody's fault
        agent.settle()
        assert len(agent.lines(HOOK)) == 2
