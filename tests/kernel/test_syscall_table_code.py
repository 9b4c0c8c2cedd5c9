"""Bytes of the kernel's code and read-only data that nothing explains are told, once, and so is their undoing."""

import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from krie.kernel.bpf_functions import bpf_functions
from krie.kernel.memory import open_memory
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule, address_of

from .diversions import MODULE, RARE
from .kernel_memory import read_memory
from .lines import of, rules_of
from .quiet_tracers import TRACEFS, fprobes, handlers, live_patch
from .syscall_hooks import ACTIVITY

CODE = "syscall_table.code"
FUNCTION, INSIDE = "reboot_pid_ns", 0x20
"""A function that nobody calls meanwhile, and a place behind what ftrace may change."""
BEHIND_FTRACE = 9
"""In a function of a few instructions: none of those that the kernel patches when it loads a module."""
SO_TIMESTAMP = 29
PLUGIN = {"syscall_table": {"wrapped": [], "shipped_pointers": False}}


@pytest.fixture(scope="module")
def comparing(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("agent")
    folder.chmod(0o700)
    with RunningAgent(folder, plugins=PLUGIN, agent={"scan_interval_s": 3}) as agent:
        looked(agent)
        yield agent


def looked(agent: RunningAgent, times: int = 1) -> None:
    """So many looks that began after this call have come to their end: one that is under way ends before them."""
    agent.settle()
    told = len(agent.lines(ACTIVITY, _compared))
    agent.wait(ACTIVITY, _compared, count=told + times + 1)


def _compared(line: Line) -> bool:
    return bool(line["event"]["text_bytes"])


def flipped(address: int) -> str:
    """What to write there, so that one bit differs. No breakpoint: it could be a kprobe's."""
    return f"{read_memory(address, 1)[0] ^ 0x02:02x}"


def code_lines(agent: RunningAgent, before: int, count: int) -> list[Line]:
    """So many more, and no other at the next looks."""
    agent.wait(CODE, count=before + count)
    looked(agent)
    lines = agent.lines(CODE)[before:]
    assert len(lines) == count, [line["event"] for line in lines]
    return lines


@pytest.mark.needs("test_module")
def test_the_reference_is_said(comparing: RunningAgent) -> None:
    (line,) = comparing.lines(ACTIVITY, _compared)[:1]
    assert line["event"]["reference"] in ("image", "start")
    assert line["event"]["text_bytes"] > 20_000_000
    assert comparing.lines(CODE) == []


@pytest.mark.needs("test_module")
@pytest.mark.parametrize("section", ["text", pytest.param("rodata", marks=pytest.mark.long), "module"])
def test_a_byte_that_was_flipped(comparing: RunningAgent, test_module: TestModule, section: str) -> None:
    name, offset = {
        "text": (FUNCTION, INSIDE),
        "rodata": ("linux_proc_banner", 2),
        "module": ("krie_test_tail", 1),
    }[section]
    if section == "module":
        looked(comparing)  # at the module's code as it is
    before = len(comparing.lines(CODE))
    address = address_of(name) + offset
    with test_module.effect("write", address, flipped(address)):
        (line,) = code_lines(comparing, before, 1)
        assert of(line, "section", "length", "address", "restored") == (section, 1, f"{address:#x}", False)
        owner = f" [{MODULE}]" if section == "module" else ""
        if section != "rodata":
            assert line["event"]["symbol"] == f"{name}+{offset:#x}{owner}"
        if section == "module":
            assert line["event"]["reference"] == "load"  # the test's module has no file below /lib/modules
        assert line["event"]["was"] != line["event"]["now"]
        assert rules_of(line) == {"SYSCALL005"}
    (line,) = code_lines(comparing, before + 1, 1)
    assert of(line, "section", "address", "restored") == (section, f"{address:#x}", True)
    assert rules_of(line) == {"SYSCALL007"}


@pytest.mark.needs("test_module")
def test_a_jump_to_a_module_says_whose_code_it_leads_to(comparing: RunningAgent, test_module: TestModule) -> None:
    before = len(comparing.lines(CODE))
    start = address_of(f"__x64_sys_{RARE}")
    with test_module.effect("divert inline force", start, start, 0):
        (line,) = code_lines(comparing, before, 1)
        assert of(line, "symbol", "owner", "section") == (f"__x64_sys_{RARE}+0x0", MODULE, "text")
        assert line["event"]["target_symbol"] == f"krie_test_wrapper+0x0 [{MODULE}]"
    (line,) = code_lines(comparing, before + 1, 1)
    assert line["event"]["restored"]


@pytest.mark.long
@pytest.mark.needs("test_module")
def test_code_of_a_bpf_program(comparing: RunningAgent, test_module: TestModule) -> None:
    before = len(comparing.lines(CODE))
    with ExitStack() as stack:
        open_memory(stack)  # a program that nobody runs
        made = max((each for each in bpf_functions() if each.name == "krie_read"), key=lambda each: each.number)
        looked(comparing)
        address = made.start + made.size - 1
        with test_module.effect("write", address, flipped(address)):
            (line,) = code_lines(comparing, before, 1)
            assert of(line, "section", "symbol") == ("bpf", f"bpf_prog krie_read+{made.size - 1:#x}")
            assert rules_of(line) == {"SYSCALL005"}
        (line,) = code_lines(comparing, before + 1, 1)
        assert line["event"]["restored"]


def hidden_in(agent: RunningAgent, module: TestModule, commands: dict[str, str]) -> None:
    """A module's functions in these lists are told while it hides, all at once, since each look takes guests long."""
    before = len(agent.lines(CODE))
    with ExitStack() as stack:
        for command in commands:
            stack.enter_context(module.effect(command))
        looked(agent)
        assert len(agent.lines(CODE)) == before  # they are a module's that is listed
        with module.effect("hide list"):
            lines = code_lines(agent, before, len(commands))
            assert sorted(line["event"]["symbol"] for line in lines) == sorted(commands.values())
            for line in lines:
                assert of(line, "section", "owner") == ("list", "?")
                assert rules_of(line) == {"SYSCALL008"}
        lines = code_lines(agent, before + len(commands), len(commands))
        assert sorted(line["event"]["symbol"] for line in lines) == sorted(commands.values())
        assert all(of(line, "section", "restored") == ("list", True) for line in lines)


@pytest.mark.long
@pytest.mark.needs("test_module")
def test_a_hidden_modules_functions_in_lists(comparing: RunningAgent, test_module: TestModule) -> None:
    commands = {
        "notify": "module_notify_list",
        f"patch {address_of(FUNCTION):x}": "ftrace_ops_list",
        f"kprobe {address_of(f'__x64_sys_{RARE}'):x}": "kprobes",
        "list filter": "hooks_ipv4[0]",
        "list precise": "high-resolution timers",
        "list thread": "kernel threads",
        "list format": "binary formats",
        "list tracepoint": "tracepoints",
    }
    hidden_in(comparing, test_module, commands)


@pytest.mark.long
@pytest.mark.needs("test_module")
def test_a_hidden_modules_timers_and_work(
    comparing: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn]
) -> None:
    looked(comparing)
    _, _, unknown = comparing.lines(ACTIVITY, _compared)[-1]["event"]["unknown"].partition("functions in lists: ")
    if "timers" in unknown:
        lacks("timer_bases: the kernel's BTF does not tell how long this variable is")
    commands = {"list timer": "timers", "list delayed": "delayed work", "list work": "work items"}
    hidden_in(comparing, test_module, commands)


@pytest.mark.long
@pytest.mark.needs("test_module")
def test_a_call_of_security_modules(
    comparing: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn]
) -> None:
    """It may not even become a call of another function of the kernel, unlike other static calls."""
    name = "lsm_static_call_quota_on_0"
    try:
        site = address_of(f"__SCT__{name}")
    except KeyError:
        lacks("lsm_static_calls: security modules are called by a list, which is read-only data")
    before = len(comparing.lines(CODE))
    jump = struct.pack("<Bi", 0xE9, address_of(FUNCTION) - site - 5)
    with test_module.effect("write", site, jump.hex()):
        (line,) = code_lines(comparing, before, 1)
        assert of(line, "section", "owner", "target_symbol") == ("text", "kernel", f"{FUNCTION}+0x0")
        assert rules_of(line) == {"SYSCALL005"}
    (line,) = code_lines(comparing, before + 1, 1)
    assert line["event"]["restored"]


@pytest.mark.long
@pytest.mark.needs("test_module")
def test_a_pointer_in_a_modules_data(comparing: RunningAgent, test_module: TestModule) -> None:
    """As in those of file systems, which are modules of most distributions' kernels."""
    looked(comparing)  # at the module's data as they are
    before = len(comparing.lines(CODE))
    address = address_of("krie_test_ways") + 8 * 3  # nobody enters anything meanwhile
    with test_module.effect("write", address, struct.pack("=Q", address_of(FUNCTION)).hex()):
        (line,) = code_lines(comparing, before, 1)
        assert of(line, "section", "symbol") == ("rodata", f"krie_test_ways+0x18 [{MODULE}]")
        assert of(line, "target_symbol", "owner") == (f"{FUNCTION}+0x0", "kernel")
        assert rules_of(line) == {"SYSCALL005"}
    (line,) = code_lines(comparing, before + 1, 1)
    assert line["event"]["restored"]


@contextmanager
def traced(tracer: str, functions: str) -> Iterator[None]:
    """Those of this pattern."""
    (TRACEFS / "set_ftrace_filter").write_text(functions)
    (TRACEFS / "current_tracer").write_text(tracer)
    try:
        yield
    finally:
        (TRACEFS / "current_tracer").write_text("nop")
        (TRACEFS / "set_ftrace_filter").write_text("")


@pytest.mark.long
@pytest.mark.needs("guest", "kprobe")
@pytest.mark.parametrize(
    ("tracer", "functions"),
    [
        ("function", "vfs_*"),
        ("function_graph", "vfs_*"),
        pytest.param("function", "", marks=pytest.mark.slow, id="all functions"),  # to explain takes guests minutes
    ],
)
def test_traced_functions_are_silent(comparing: RunningAgent, tracer: str, functions: str) -> None:
    before = len(comparing.lines(CODE))
    with traced(tracer, functions):
        looked(comparing)
    looked(comparing)
    lines = comparing.lines(CODE)[before:]
    assert not lines, [line["event"] for line in lines]


@pytest.mark.long
@pytest.mark.needs("guest", "kprobe")
@pytest.mark.parametrize("what", ["fprobes", "live patch"])
def test_probes_and_patches_of_handlers_are_silent(
    comparing: RunningAgent, lacks: Callable[[str], NoReturn], what: str
) -> None:
    before = len(comparing.lines(CODE))
    with fprobes(handlers(), lacks) if what == "fprobes" else live_patch(lacks):
        looked(comparing)
    looked(comparing)
    lines = comparing.lines(CODE)[before:]
    assert not lines, [line["event"] for line in lines]


@pytest.fixture
def unused_module(lacks: Callable[[str], NoReturn]) -> Iterator[str]:
    """A function of one of the distribution's modules that nobody calls."""
    if subprocess.run(["modprobe", "dummy"], capture_output=True).returncode:
        lacks("dummy: this kernel has no such module")
    yield "dummy_change_carrier"
    subprocess.run(["rmmod", "dummy"], check=True)


@pytest.mark.needs("test_module", "guest")
def test_a_module_that_was_changed_before_its_first_look(
    comparing: RunningAgent, test_module: TestModule, unused_module: str
) -> None:
    """Its file says what its code should be."""
    before = len(comparing.lines(CODE))
    address = address_of(unused_module) + BEHIND_FTRACE
    with test_module.effect("write", address, flipped(address)):
        (line,) = code_lines(comparing, before, 1)
        assert of(line, "section", "symbol", "reference") == (
            "module",
            f"{unused_module}+{BEHIND_FTRACE:#x} [dummy]",
            "file",
        )
        assert "dummy" not in comparing.lines(ACTIVITY, _compared)[-1]["event"]["unknown"]
    (line,) = code_lines(comparing, before + 1, 1)
    assert of(line, "reference", "restored") == ("file", True)


@pytest.mark.needs("test_module")
def test_a_modules_function_at_a_tracepoint_is_silent(comparing: RunningAgent, test_module: TestModule) -> None:
    """The only one there, so that the kernel patches the tracepoint to call it (static calls, 5.10)."""
    looked(comparing)
    before = len(comparing.lines(CODE))
    with test_module.effect("list tracepoint"):
        looked(comparing)
    looked(comparing)
    assert comparing.lines(CODE)[before:] == []


@pytest.mark.needs("guest")
def test_a_hypervisor_is_silent(comparing: RunningAgent, lacks: Callable[[str], NoReturn]) -> None:
    """It tells perf of guests: static calls of the kernel's lead to the module since 5.17."""
    vendors = ("kvm_amd", "kvm_intel")
    loaded = next(
        (each for each in vendors if not subprocess.run(["modprobe", each], capture_output=True).returncode), ""
    )
    if not loaded:
        lacks("hypervisor: none of KVM's modules can be loaded")
    looked(comparing)
    before = len(comparing.lines(CODE))
    subprocess.run(["modprobe", "-r", loaded], check=True)
    looked(comparing)
    subprocess.run(["modprobe", loaded], check=True)
    looked(comparing)
    assert comparing.lines(CODE)[before:] == []


@pytest.mark.long
@pytest.mark.needs("test_module")
def test_modules_that_come_and_go_are_silent(comparing: RunningAgent, test_module: TestModule) -> None:
    """Each time at another place, or at the same one with another's code in it."""
    before = len(comparing.lines(CODE))
    for _ in range(10):
        test_module.unload()
        test_module.load()
    looked(comparing)
    lines = comparing.lines(CODE)[before:]
    assert not lines, [line["event"] for line in lines]


@pytest.mark.needs("test_module", "kprobe")
@pytest.mark.parametrize("count", [16, pytest.param(100, marks=pytest.mark.long)])
def test_probes_that_come_and_go_are_silent(comparing: RunningAgent, test_module: TestModule, count: int) -> None:
    """Many that are registered and removed while code is being compared; static keys; one inside a function."""
    before = len(comparing.lines(CODE))
    events = TRACEFS / "kprobe_events"
    for number in range(count):
        name = f"krie_quiet/p{number}"
        events.write_text(f"{'pr'[number % 2]}:{name} __x64_sys_{(RARE, 'kill', 'getpid', 'openat')[number % 4]}\n")
        (TRACEFS / f"events/{name}/enable").write_text("1")
        with test_module.effect("patch", address_of(FUNCTION)):
            pass
        (TRACEFS / f"events/{name}/enable").write_text("0")
        events.write_text("\n")  # opening it to write has removed all
    for _ in range(20):  # each flips static keys
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
    start = address_of(f"__x64_sys_{RARE}")
    for offset in range(5, 40):  # those inside of functions are optimized
        try:
            with test_module.effect("kprobe", start + offset):
                looked(comparing)
            break
        except OSError:
            continue
    looked(comparing)
    lines = comparing.lines(CODE)[before:]
    assert not lines, [line["event"] for line in lines]


@pytest.mark.long
@pytest.mark.needs("test_module", "guest")
def test_what_was_changed_before_the_agent_is_told_by_the_image(
    alone: None, test_module: TestModule, boot_image: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    address = address_of(FUNCTION) + INSIDE
    with (
        test_module.effect("write", address, flipped(address)),
        RunningAgent(tmp_path, plugins=PLUGIN, agent={"scan_interval_s": 3}) as agent,
    ):
        (line,) = code_lines(agent, 0, 1)
        assert of(line, "symbol", "reference") == (f"{FUNCTION}+{INSIDE:#x}", "image")
