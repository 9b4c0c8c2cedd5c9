"""What is told of bpf(2): what a call is about, and all that a program calls which it loads."""

import os
from collections.abc import Callable
from typing import NoReturn

import pytest
from krie import Btf
from krie.testing.fixtures import JournalOfVictims
from krie.testing.victims import Victims

from .lines import rules_of
from .operations import BPF, PREFIX


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
    assert [rules_of(lines[3]), rules_of(lines[4]), rules_of(lines[5])] == [{"BPF005"}, {"BPF006"}, set()]
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
    assert "BPF002" in rules_of(lines[0])


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
