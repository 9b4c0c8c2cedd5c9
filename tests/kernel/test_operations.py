"""The operation events of runtime_integrity: each trigger gives exactly its events, its twin gives none."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from krie import Btf
from krie.plugins.runtime_integrity.patched_functions import Patch, PatchedFunctions
from krie.testing.agent import Line, RunningAgent
from krie.testing.fixtures import JournalOfVictims
from krie.testing.module import TestModule, address_of
from krie.testing.needs import MODULE_VARIABLE
from krie.testing.victims import Victims

PREFIX = "runtime_integrity."


def rules(line: Line) -> set[str]:
    return {each["id"] for each in line["decision"]["rules"]}


FILTER = """
import socket, struct
made = socket.socket(getattr(socket, sys.argv[1]), socket.SOCK_DGRAM)
code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0xFFFF))  # accept everything
made.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 1, ctypes.addressof(code)))
made.setsockopt(socket.SOL_SOCKET, 27, 0)
"""


def test_filters_of_sockets(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run(FILTER + "made.setsockopt(socket.SOL_SOCKET, 44, 1)", "AF_UNIX")
    lines = journal.exactly(f"{PREFIX}socket_filter", 3, family="unix", type="dgram")
    assert [line["event"]["operation"] for line in lines] == ["attach_filter", "detach_filter", "lock_filter"]
    assert [line["event"]["insn_count"] for line in lines] == [1, 0, 0]
    assert set().union(*map(rules, lines)) == set()


def test_a_filter_of_packets(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run(FILTER, "AF_PACKET")
    attached, detached = journal.exactly(f"{PREFIX}socket_filter", 2, family="packet")
    assert (rules(attached), rules(detached)) == ({"SOCKET001"}, set())


def test_the_same_numbers_at_another_level(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run("import socket; socket.socket(socket.AF_INET6).setsockopt(41, 26, 1)")  # IPV6_V6ONLY
    victims.run("import socket; socket.socket().setsockopt(socket.SOL_SOCKET, 2, 1)")
    journal.none(f"{PREFIX}socket_filter")


PERF = """
import struct
def perf_event(type, config=0, config1=0, config2=0):
    attributes = struct.pack("=IIQQQQQIIQQ", type, 112, config, 0, 0, 0, 0x61, 0, 0, config1, config2)
    return libc.syscall(298, ctypes.create_string_buffer(attributes, 112), 0, -1, -1, 8)
"""


def test_a_performance_event(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run(PERF + "file = perf_event(1, 9); assert file >= 0; os.read(file, 8)")  # a software event: dummy
    (line,) = journal.exactly(f"{PREFIX}perf_event_open", 1, type="software", pmu="software", config=9, probe=False)
    assert line["event"]["target_tgid"] == line["process"]["tgid"]
    assert (line["event"]["other_user"], line["event"]["kernel"], rules(line)) == (False, False, set())


UPPER_HALF = f"""{PERF}
import mmap, struct
raw = b"\\x49\\x89\\xca\\x48\\xb8" + struct.pack("=Q", 298 | 1 << 32) + b"\\x0f\\x05\\xc3"  # r10 = rcx; rax = N
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(raw)
call = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 5)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
attributes = ctypes.create_string_buffer(struct.pack("=IIQ", 1, 112, 9).ljust(112, b"\\0"), 112)
file = call(ctypes.addressof(attributes), 0, -1, -1, 0)
print(file, flush=True)
"""


def test_what_lies_in_the_upper_half_of_the_numbers_register_hides_nothing(
    journal: JournalOfVictims, victims: Victims
) -> None:
    """The kernel takes the lower half, since 5.13, and refuses the call before."""
    file = int(victims.run(UPPER_HALF).stdout)
    journal.exactly(f"{PREFIX}perf_event_open", file >= 0, type="software", config=9)


PROBE = f"""{PERF}
kind = int(open("/sys/bus/event_source/devices/" + sys.argv[1] + "/type").read())
name = ctypes.create_string_buffer(sys.argv[2].encode())
file = perf_event(kind, int(sys.argv[4]), ctypes.addressof(name), int(sys.argv[3]))
assert file >= 0, ctypes.get_errno()
os.close(file)
"""


@pytest.mark.needs("guest", "kprobe")
@pytest.mark.parametrize(("returns", "mechanism"), [(0, "kprobe"), (1, "kretprobe")])
def test_a_kprobe_by_perf(journal: JournalOfVictims, victims: Victims, returns: int, mechanism: str) -> None:
    victims.run(PROBE, "kprobe", "do_exit", "0", str(returns))
    (opened,) = journal.exactly(f"{PREFIX}perf_event_open", 1, pmu="kprobe", probed="do_exit", probe=True)
    assert rules(opened) == {"PERF001"}
    lines = [line for line in journal.lines(f"{PREFIX}probe_register") if line["event"]["mechanism"] != "trampoline"]
    operations = [line["event"]["operation"] for line in lines]
    assert (operations[0], operations[-1]) == ("register", "unregister")
    assert {"enable", "disable"} >= set(operations[1:-1])
    assert {line["event"]["mechanism"] for line in lines} == {mechanism}
    assert {(line["event"]["symbol"], line["event"]["owner"]) for line in lines} == {("do_exit", "kernel")}
    assert set().union(*map(rules, lines)) == set()


REFUSED = f"""{PERF}
kind = int(open("/sys/bus/event_source/devices/kprobe/type").read())
name = ctypes.create_string_buffer(b"do_exit")
for _ in range(20):
    assert perf_event(kind, 1, 0, 8) < 0  # a return probe where no function is
    file = perf_event(kind, 0, ctypes.addressof(name), 0)
    assert file >= 0, ctypes.get_errno()
    os.close(file)
"""


@pytest.mark.needs("guest", "kprobe")
def test_a_kprobe_in_the_memory_of_a_refused_return_probe(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run(REFUSED)
    found = [line["event"] for line in journal.lines(f"{PREFIX}probe_register") if line["event"]["symbol"] == "do_exit"]
    assert {event["mechanism"] for event in found} == {"kprobe"}
    assert {event["operation"] for event in found} >= {"register", "unregister"}


@pytest.mark.needs("guest", "kprobe")
def test_a_uprobe_by_perf(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run(PROBE, "uprobe", "/bin/true", "64", "0")
    (opened,) = journal.exactly(f"{PREFIX}perf_event_open", 1, pmu="uprobe", probed="/bin/true", offset=64)
    assert rules(opened) == {"PERF003"}
    lines = journal.exactly(f"{PREFIX}probe_register", 2, mechanism="uprobe", symbol="true", offset=64)
    assert [line["event"]["operation"] for line in lines] == ["register", "unregister"]
    assert lines[0]["event"]["file_ino"] > 0


BPF = """
import resource, struct
try:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (-1, -1))
except ValueError:
    pass
licence = ctypes.create_string_buffer(b"GPL")

def bpf(command, attributes):
    return libc.syscall(321, command, ctypes.create_string_buffer(attributes.ljust(120, b"\\0"), 120), 120)

def load(kind, code, flags=0):
    instructions = ctypes.create_string_buffer(code)
    head = struct.pack("=IIQQ", kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence))
    return bpf(5, head + struct.pack("=IIQII16s", 0, 0, 0, 0, flags, b"victim"))

RETURN = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)
"""


def test_what_bpf_calls_are_about(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run(
        BPF
        + """
program = load(17, RETURN)
tracepoint, path = ctypes.create_string_buffer(b"sched_process_exit"), ctypes.create_string_buffer(b"/nowhere/x")
link = bpf(17, struct.pack("=QI", ctypes.addressof(tracepoint), program))
map = bpf(0, struct.pack("=IIIII", 2, 4, 8, 1, 0))
assert min(program, link, map) >= 0
bpf(6, struct.pack("=QI", ctypes.addressof(path), map))
bpf(34, struct.pack("=I", link))
bpf(8, struct.pack("=IIII", os.open(sys.argv[1], os.O_RDONLY), program, 6, 0))  # not a program for a cgroup
""",
        "/sys/fs/cgroup",
    )
    lines = journal.exactly(f"{PREFIX}bpf", 6, from_kernel=False)
    loaded, opened, made, pinned, detached, attached = (line["event"] for line in lines)
    assert (loaded["command"], made["command"], made["map_type"]) == ("prog_load", "map_create", "array")
    assert (opened["object"], opened["prog_type"], opened["name"]) == ("prog", "raw_tracepoint", "victim")
    assert opened["path"] == "sched_process_exit"
    assert (pinned["object"], pinned["map_type"], pinned["path"]) == ("map", "array", "/nowhere/x")
    assert (detached["object"], attached["object"]) == ("link", "prog")
    assert (attached["attach_type"], attached["object_id"]) == ("cgroup_device", opened["object_id"])
    assert attached["target_ino"] == os.stat("/sys/fs/cgroup").st_ino
    assert [rules(lines[3]), rules(lines[4]), rules(lines[5])] == [{"BPF005"}, {"BPF006"}, set()]
    assert 0 not in (opened["object_id"], pinned["object_id"], detached["object_id"])


def test_all_that_a_bpf_program_calls(journal: JournalOfVictims, victims: Victims) -> None:
    """The kernel refuses such programs, but only after they were seen."""
    victims.run(
        BPF
        + """
def call(number, source=0):  # 0: a helper, 1: a function of the program itself, 2: one of the kernel
    return struct.pack("<BBhi", 0x85, source << 4, 0, number)
assert load(17, call(14) + call(36) + struct.pack("<BBhi", 0xB7, 0, 0, 5) * 16000 + RETURN) < 0
assert load(17, call(14) + call(63) + call(64) + call(250) + call(300) + call(7, 1) + RETURN) < 0
assert load(17, RETURN * 2 + call(0) + call(7, 2)) < 0
"""
    )
    lines = [line["event"] for line in journal.exactly(f"{PREFIX}bpf", 3)]
    assert [each["helpers_known"] for each in lines] == [False, True, True]
    assert [each["called"] for each in lines] == [
        ["get_current_pid_tgid", "probe_write_user"],
        ["get_current_pid_tgid", "msg_pull_data", "bind", "250"],
        ["unspec"],
    ]
    assert [each["helpers"] for each in lines] == [["probe_write_user"], [], []]
    assert [each["calls_kernel"] for each in lines] == [False, False, True]


@pytest.mark.once
def test_loads_that_use_newer_attributes(journal: JournalOfVictims, victims: Victims) -> None:
    """A program with an array of descriptors, and one with a signature that is none, which the kernel may refuse."""
    victims.run(
        BPF
        + """
def load_more(code, offset, more):
    instructions = ctypes.create_string_buffer(code)
    head = struct.pack("=IIQQIIQII16s", 17, len(code) // 8, ctypes.addressof(instructions),
                       ctypes.addressof(licence), 0, 0, 0, 0, 0, b"victim")
    attributes = (head.ljust(offset, b"\\0") + more).ljust(168, b"\\0")
    return libc.syscall(321, 5, ctypes.create_string_buffer(attributes, 168), 168)

map = bpf(0, struct.pack("=IIIII", 2, 4, 8, 1, 0))
descriptors = ctypes.create_string_buffer(struct.pack("=I", map), 4)
by_index = struct.pack("<BBhi", 0x18, 2 | 5 << 4, 0, 0) + bytes(8)  # BPF_PSEUDO_MAP_IDX
signals = struct.pack("<BBhi", 0xB7, 1, 0, 0) + struct.pack("<BBhi", 0x85, 0, 0, 109)
program = load_more(by_index + signals + RETURN, 120, struct.pack("=Q", ctypes.addressof(descriptors)))
assert program >= 0, ctypes.get_errno()
signature = ctypes.create_string_buffer(b"signed", 6)
assert load_more(signals + RETURN, 152, struct.pack("=QII", ctypes.addressof(signature), 6, 1)) < 0
"""
    )
    events = [line["event"] for line in journal.lines(f"{PREFIX}bpf") if line["event"]["command"] == "prog_load"]
    assert len(events) in (1, 2)  # where a hook is asked, it is asked behind the signature
    assert [(each["helpers_known"], each["helpers"]) for each in events] == [(True, ["send_signal"])] * len(events)


def test_a_function_of_the_kernel_that_sends_signals(
    journal: JournalOfVictims, victims: Victims, lacks: Callable[[str], NoReturn]
) -> None:
    """It counts as the helper of that name does. A number in a module's BTF is another function."""
    function = Btf().function_id("bpf_send_signal_task")
    if not function:
        lacks("signal_kfunc: this kernel has no bpf_send_signal_task()")
    victims.run(
        BPF
        + """
for number, module in ((int(sys.argv[1]), 0), (int(sys.argv[1]) + 1, 0), (int(sys.argv[1]), 1)):
    assert load(17, RETURN[:8] * 700 + struct.pack("<BBhi", 0x85, 2 << 4, module, number) + RETURN) < 0
""",
        str(function),
    )
    lines = journal.exactly(f"{PREFIX}bpf", 3)
    assert [line["event"]["calls_kernel"] for line in lines] == [True] * 3
    assert [line["event"]["helpers"] for line in lines] == [["send_signal"], [], []]
    assert "BPF002" in rules(lines[0])


@pytest.mark.parametrize("before", [254, 255, 256, 2999, 15359, 15360])
def test_what_a_long_program_calls_last(journal: JournalOfVictims, victims: Victims, before: int) -> None:
    """Its instructions are looked at by 256 in one run of a program, and 15,360 in all."""
    victims.run(
        BPF
        + """
assert load(17, struct.pack("<BBhi", 0xB7, 0, 0, 5) * int(sys.argv[1]) + struct.pack("<BBhi", 0x85, 0, 0, 109)) < 0
""",
        str(before),
    )
    (line,) = journal.exactly(f"{PREFIX}bpf", 1, insn_count=before + 1)
    all_of_it = before < 15360
    assert line["event"]["helpers_known"] == all_of_it
    assert line["event"]["helpers"] == (["send_signal"] if all_of_it else [])


@pytest.mark.needs("lsm")
def test_a_bpf_program_that_calls_bpf(
    journal: JournalOfVictims, victims: Victims, lacks: Callable[[str], NoReturn]
) -> None:
    """One of type syscall makes a map: no system call does."""
    shown = victims.run(
        BPF
        + """
def store(offset, low):
    return struct.pack("<BBhi", 0x62, 10, offset, low)  # a word on the stack
attributes = b"".join(store(-72 + 4 * each, (2, 4, 8, 1)[each] if each < 4 else 0) for each in range(18))
call = struct.pack("<BBhi", 0xB7, 1, 0, 0) + struct.pack("<BBhi", 0xBF, 0xA2, 0, 0) + struct.pack("<BBhi", 7, 2, 0, -72)
call += struct.pack("<BBhi", 0xB7, 3, 0, 72) + struct.pack("<BBhi", 0x85, 0, 0, 166)
program = load(31, attributes + call + RETURN, 1 << 4)
print(program)
assert program < 0 or bpf(10, struct.pack("=I", program)) == 0, ctypes.get_errno()
"""
    )
    if int(shown.stdout) < 0:
        lacks("syscall_program: a BPF program of type syscall is not accepted")
    lines = [line["event"] for line in journal.lines(f"{PREFIX}bpf") if line["event"]["command"] == "map_create"]
    assert [(each["from_kernel"], each["map_type"]) for each in lines] == [(True, "array")]


@pytest.fixture
def module() -> Iterator[TestModule]:
    made = TestModule(Path(os.environ[MODULE_VARIABLE]))
    yield made
    subprocess.run(["/usr/sbin/rmmod", made.name], capture_output=True, check=False)


@pytest.mark.needs("test_module", "kprobe")
def test_a_module_comes_and_goes(journal: JournalOfVictims, victims: Victims, module: TestModule) -> None:
    """Its init function registers a kprobe: both are told."""
    address = address_of("do_exit")
    victims.execute(["/usr/sbin/insmod", str(module.file), f"probed={address:#x}"])
    victims.execute(["/usr/sbin/rmmod", module.name])
    asked, linked = journal.exactly(f"{PREFIX}module_load", 2, helper=False, flags=[])
    assert (asked["event"]["step"], asked["event"]["path"]) == ("file", str(module.file.resolve()))
    assert asked["event"]["file_ino"] > 0  # on an overlayfs the kernel's number is another than stat's
    assert asked["event"]["file_deleted"] is False
    assert "MODULE003" in rules(asked)
    assert (linked["event"]["step"], linked["event"]["name"]) == ("linked", module.name)
    assert asked["event"]["args"] == linked["event"]["args"] == f"probed={address:#x}"
    signatures = Path("/sys/module/module/parameters/sig_enforce").exists()  # this kernel knows of any
    assert {"out_of_tree"} | ({"unsigned"} if signatures else set()) <= set(linked["event"]["taints"])
    assert linked["event"]["code_address"] > 1 << 63
    assert 0 < linked["event"]["code_size"] < 1 << 20
    assert rules(linked) == ({"MODULE006"} if signatures else set())
    gone = journal.exactly(f"{PREFIX}module_unload", 2, name=module.name, failed_load=False, forced=False)
    assert [line["event"]["step"] for line in gone] == ["asked", "freed"]
    assert [rules(line) for line in gone] == [{"MODULE007"}, set()]
    probes = journal.exactly(f"{PREFIX}probe_register", 2, mechanism="kprobe", owner=module.name)
    assert [line["event"]["operation"] for line in probes] == ["register", "unregister"]


@pytest.mark.needs("test_module")
def test_a_module_out_of_memory(journal: JournalOfVictims, victims: Victims, module: TestModule) -> None:
    code = "image = open(sys.argv[1], 'rb').read(); assert libc.syscall(175, image, len(image), b'') == 0"
    victims.run(code, str(module.file))
    asked, linked = journal.exactly(f"{PREFIX}module_load", 2, path="", file_ino=0)
    assert (asked["event"]["step"], rules(asked), asked["would"]) == ("memory", {"MODULE001"}, ["override"])
    assert linked["event"]["name"] == module.name


@pytest.mark.needs("test_module")
def test_a_module_that_cannot_be_loaded(journal: JournalOfVictims, victims: Victims, module: TestModule) -> None:
    """Its init function fails, after it was linked."""
    with pytest.raises(subprocess.CalledProcessError):
        victims.execute(["/usr/sbin/insmod", str(module.file), "probed=8"])
    (freed,) = journal.exactly(f"{PREFIX}module_unload", 1, step="freed", name=module.name, failed_load=True)
    assert rules(freed) == set()


def test_an_unload_of_nothing(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run("libc.syscall(176, b'lkrg', 0o4000 | 0o1000)")
    (line,) = journal.exactly(f"{PREFIX}module_unload", 1, step="asked", name="lkrg", forced=True)
    assert rules(line) == {"MODULE007", "MODULE008"}


@pytest.mark.needs("ia32")
def test_an_unload_from_a_code_segment_of_ones_own(
    journal: JournalOfVictims, victims: Victims, tmp_path: Path, lacks: Callable[[str], NoReturn]
) -> None:
    """The kernel knows user mode by its privilege level, and not by the number of the segment."""
    program = tmp_path / "own_segment"
    source = Path(__file__).with_name("own_segment.c")
    subprocess.run(["gcc", "-O1", "-mno-red-zone", "-o", program, source], check=True)
    try:
        victims.execute([str(program)])
    except subprocess.CalledProcessError as error:
        if error.returncode == 77:
            lacks("modify_ldt: this kernel makes no local descriptor tables")
        assert error.returncode in (errno.ENOENT, errno.ENOSYS)
    (line,) = journal.exactly(f"{PREFIX}module_unload", 1, step="asked", name="krie_none", compat=True)
    assert rules(line) == {"MODULE007"}


@pytest.mark.needs("test_module")
def test_a_function_that_a_module_patches_is_found(test_module: TestModule) -> None:
    function = "proc_tgid_stat"
    with test_module.effect("patch", address_of(function)):
        patched = PatchedFunctions()
        assert Patch(function, test_module.name) in patched.look()
        assert Patch(function, test_module.name) not in patched.look()


def test_the_agents_own_activity_is_left_out(agent: RunningAgent) -> None:
    agent.settle()
    for kind in ("module_load", "module_unload", "socket_filter", "perf_event_open", "probe_register"):
        assert agent.lines(f"{PREFIX}{kind}", lambda line: line["process"]["tgid"] == agent.process.pid) == []
