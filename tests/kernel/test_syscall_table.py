"""What leads a system call away from the kernel is told, once, with whose code it leads to; and so is its undoing."""

import ctypes
import errno
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from krie.plugins.syscall_table.control import field_offset
from krie.testing.agent import RunningAgent
from krie.testing.module import TestModule, address_of
from krie.testing.patience import PATIENCE_S

from .diversions import MODULE, RARE, SLOT, TRIGGER, at_start, diversion, jump_to, number_of, of_other_callers
from .kernel_memory import read_memory
from .lines import of, rules_of
from .quiet_tracers import TRACEFS, fprobes, handlers, live_patch
from .syscall_hooks import ACTIVITY, HOOK, PLUGIN, Hooks

WRAPPED = "syscall_table.wrapped"
_BREAKPOINT = 3


@pytest.fixture(scope="module")
def watching(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("agent")
    folder.chmod(0o700)
    with RunningAgent(folder, plugins=PLUGIN, agent={"scan_interval_s": 1}) as agent:
        yield agent


WHERE = {"table": "table", "jump": "dispatch", "tail": "dispatch", "inline": "handler"}


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
        if TRIGGER[how] != "timer":
            assert line["process"]["tgid"] == os.getpid()
        assert rules_of(line) == ({"SYSCALL003"} if what == "inline" else {"SYSCALL001"})
    (line,) = hooks.expect(1)
    assert of(line, "where", "restored") == (WHERE[what], True)
    assert rules_of(line) == {"SYSCALL007"}


@pytest.mark.needs("test_module", "kretprobe")
@pytest.mark.parametrize("abi", ["ia32", "x32"])
def test_a_system_call_of_other_callers(
    watching: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn], abi: str
) -> None:
    where, address, leads_elsewhere = of_other_callers(abi, lacks)
    hooks = Hooks(watching)
    with test_module.effect("write", address, leads_elsewhere.hex()):
        (line,) = hooks.expect(1)
        assert of(line, "where", "abi", "address", "owner") == (where, abi, f"{address:#x}", MODULE)
        assert of(line, "target", "syscall") == ("module", RARE)
        assert rules_of(line) == {"SYSCALL001"}
    (line,) = hooks.expect(1)
    assert of(line, "where", "abi", "restored") == (where, abi, True)


@pytest.mark.needs("test_module", "kretprobe")
def test_code_on_the_way_to_the_dispatch(
    watching: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn]
) -> None:
    """That of 32-bit callers, of whom there are none in a guest."""
    try:
        place = address_of("do_fast_syscall_32") + 0x20
    except KeyError:
        lacks("ia32_callers: this kernel has none")
    hooks = Hooks(watching)
    with test_module.effect("write", place, f"{read_memory(place, 1)[0] ^ 2:02x}"):
        (line,) = hooks.expect(1)
        assert of(line, "where", "target", "explained", "restored") == ("entry", "none", "", False)
        assert line["event"]["place"] == "do_fast_syscall_32+0x20"
        assert rules_of(line) == {"SYSCALL003"}
    (line,) = hooks.expect(1)
    assert of(line, "where", "restored") == ("entry", True)


@pytest.mark.needs("test_module", "raw_tracepoint")
@pytest.mark.parametrize(
    ("what", "how"),
    [("table", "force"), ("jump", "force"), ("inline", "force"), ("tail", "alias"), ("inline", "poke")],
)
def test_a_module_that_diverts_at_its_start_is_told_before_insmod_returns(
    watching: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn], what: str, how: str
) -> None:
    words = diversion(what, how, lacks)
    test_module.unload()
    hooks = Hooks(watching)
    insmod = subprocess.Popen(["insmod", str(test_module.file), at_start(*words)])
    assert insmod.wait(PATIENCE_S) == 0
    (line,) = hooks.expect(1)
    trigger = "module_init" if how == "force" else TRIGGER[how]
    assert of(line, "where", "trigger", "owner") == (WHERE[what], trigger, MODULE)
    assert line["event"]["own_module"] == (what != "inline")  # where those bytes lead is known later
    assert line["process"]["tgid"] == insmod.pid
    assert rules_of(line) == ({"SYSCALL003"} if what == "inline" else {"SYSCALL001", "SYSCALL002"})
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
        what, address = "table", address_of("sys_call_table") + SLOT * number_of("kill")
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
    address = address_of("udp_seq_ops") + 2 * SLOT
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
