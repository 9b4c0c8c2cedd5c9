"""Real triggers on this kernel: each gives exactly its events, with the program that did it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from krie.processes.enrich import host
from krie.testing.agent import RunningAgent, fired
from krie.testing.fixtures import JournalOfVictims
from krie.testing.victims import Victims

from .tail_calls import slots_emptied

TRACE = """
import time
child = os.fork()
if child == 0:
    os.setresuid(12345, 12345, 12345) if sys.argv[2:] else None
    time.sleep(60)
    os._exit(0)
if sys.argv[2:]:
    while os.stat(f"/proc/{child}").st_uid != 12345:
        pass
request = int(sys.argv[1])
if request in (310, 311):
    buffer = ctypes.create_string_buffer(8)
    libc.syscall(request, child, ctypes.byref((ctypes.c_ulong * 2)(ctypes.addressof(buffer), 8)), 1,
                 ctypes.byref((ctypes.c_ulong * 2)(ctypes.addressof(buffer), 8)), 1, 0)
else:
    assert libc.syscall(101, request, child, 0, 0) == 0, ctypes.get_errno()
os.kill(child, 9)
os.waitpid(child, 0)
print(os.getpid(), child)
"""


@pytest.mark.parametrize(
    ("request_", "operation"), [(16, "attach"), (0x4206, "seize"), (310, "vm_read"), (311, "vm_write")]
)
def test_ptrace_of_a_child(journal: JournalOfVictims, victims: Victims, request_: int, operation: str) -> None:
    actor, target = map(int, victims.run(TRACE, str(request_)).stdout.split())
    (line,) = journal.exactly("runtime_integrity.ptrace", 1)
    event, process = line["event"], line["process"]
    if event["request"]:  # known to the probe at the system call only
        assert (event["operation"], event["request"]) == (operation, request_)
    assert (process["tgid"], event["target_tgid"], event["target_known"]) == (actor, target, True)
    assert process["exe"] == os.path.realpath(sys.executable)
    assert event["target"]["exe"] == process["exe"]
    assert event["target"]["start_time"] == event["target_start_time"] > process["start_time"]
    assert line["decision"]["rules"] == []


def test_ptrace_of_another_users_process(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run(TRACE, "16", "as another user")
    (line,) = journal.exactly("runtime_integrity.ptrace", 1)
    assert line["event"]["target_uid"] == 12345
    (rule,) = line["decision"]["rules"]
    assert (rule["id"], rule["action"], rule["severity"]) == ("PTRACE003", "log", "low")
    assert (bool(rule["title"]), rule["technique"]) == (True, "T1055.008")
    assert line["decision"]["action"] == "log"
    assert line["host"] == host()
    assert line["process"]["start_time"] < line["since_boot_ns"] < time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_traceme(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run("libc.syscall(101, 0, 0, 0, 0)")
    (line,) = journal.exactly("runtime_integrity.ptrace", 1)
    assert line["event"]["operation"] == "traceme"
    assert line["event"]["target_tgid"] == line["process"]["tgid"]


@pytest.mark.needs("ia32")
def test_a_32_bit_caller_is_seen(journal: JournalOfVictims, victims: Victims, tmp_path: Path) -> None:
    source = tmp_path / "int80.c"
    call = 'asm volatile("int $0x80" : "=a"(r) : "a"(26), "b"(0), "c"(0), "d"(0), "S"(0));'
    source.write_text(f"int main(void) {{ long r; {call} return r; }}")
    subprocess.run(["gcc", "-o", tmp_path / "int80", source], check=True)
    victims.execute([str(tmp_path / "int80")])
    (line,) = journal.exactly("runtime_integrity.ptrace", 1)
    assert (line["event"]["operation"], line["event"]["compat"]) == ("traceme", True)
    assert line["process"]["exe"] == str(tmp_path / "int80")


def test_a_debugger_on_its_own_child_is_silent(agent: RunningAgent, victims: Victims) -> None:
    victims.execute(["strace", "-o", "/dev/null", "true"])
    agent.settle()
    assert agent.lines("runtime_integrity.ptrace", victims.mine)
    assert all(not line["decision"]["rules"] for line in agent.lines("runtime_integrity.ptrace", victims.mine))


PROGRAM = """
import contextlib, resource, struct
with contextlib.suppress(ValueError):  # kernels before 5.11 count BPF programs there; on others it may be refused
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (-1, -1))
helper, padding = int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 0
code = struct.pack("<BBhi", 0xB7, 0, 0, 0) * padding
code += struct.pack("<BBhi", 0xB7, 1, 0, 9) + struct.pack("<BBhi", 0x85, 0, 0, helper) if helper else b""
code += struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)
insns, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
attr = struct.pack("=IIQQIIQII16s", 17, len(code) // 8, ctypes.addressof(insns), ctypes.addressof(licence),
                   0, 0, 0, 0, 0, b"victim")
buffer = ctypes.create_string_buffer(attr.ljust(120, b"\\0"), 120)
"""
LOAD = f"{PROGRAM}\nprint(libc.syscall(321, 5, ctypes.byref(buffer), 120))"


@pytest.mark.parametrize(
    ("helper", "name", "rules"),
    [(0, None, ["BPF001"]), (14, None, ["BPF001"]), (109, "send_signal", ["BPF001", "BPF002"])],
)
def test_bpf_load(
    agent: RunningAgent, journal: JournalOfVictims, victims: Victims, helper: int, name: str | None, rules: list[str]
) -> None:
    assert int(victims.run(LOAD, str(helper)).stdout) >= 0
    (line,) = journal.exactly("runtime_integrity.bpf", 1)
    event = line["event"]
    assert (event["command"], event["prog_type"], event["name"]) == ("prog_load", "raw_tracepoint", "victim")
    assert event["helpers"] == ([name] if name else [])
    assert event["called"] == ([{14: "get_current_pid_tgid", 109: "send_signal"}[helper]] if helper else [])
    assert (event["helpers_known"], event["attr_known"], event["insn_count"]) == (True, True, 4 if helper else 2)
    assert [each["id"] for each in line["decision"]["rules"]] == rules
    assert line["would"] == (["override"] if name else [])
    assert line["done"] == []
    agent.settle()
    assert len(agent.lines("runtime_integrity.bpf", victims.mine)) == 1


def test_padding_hides_nothing(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run(LOAD, "109", "4200")
    (line,) = journal.exactly("runtime_integrity.bpf", 1)
    assert (line["event"]["helpers"], line["event"]["helpers_known"]) == (["send_signal"], True)
    assert [each["id"] for each in line["decision"]["rules"]] == ["BPF001", "BPF002"]


def test_what_is_too_large_to_be_read_would_be_refused(journal: JournalOfVictims, victims: Victims) -> None:
    assert int(victims.run(LOAD, "0", "20000").stdout) >= 0  # nothing is, in mode observe
    (line,) = journal.exactly("runtime_integrity.bpf", 1)
    assert (line["event"]["attr_known"], line["event"]["helpers_known"]) == (True, False)
    assert [each["id"] for each in line["decision"]["rules"]] == ["BPF001", "BPF007"]
    assert line["would"] == ["override"]


REPLACES = """
code = struct.pack("<BBhi", 0x62, 10, -8, 0x30)  # *(u32 *)(fp - 8) = "0"
code += struct.pack("<BBhi", 0xBF, 0xA2, 0, 0) + struct.pack("<BBhi", 0x07, 2, 0, -8)
code += struct.pack("<BBhi", 0xB7, 3, 0, 1) + struct.pack("<BBhi", 0x85, 0, 0, 104)  # sysctl_set_new_value
code += struct.pack("<BBhi", 0xB7, 0, 0, 1) + struct.pack("<BBhi", 0x95, 0, 0, 0)
insns = ctypes.create_string_buffer(code)
struct.pack_into("=IIQ", buffer, 0, 23, len(code) // 8, ctypes.addressof(insns))
struct.pack_into("=I", buffer, 68, 18)
print(libc.syscall(321, 5, ctypes.byref(buffer), 120))
"""


def test_what_replaces_values_behind_the_probe(journal: JournalOfVictims, victims: Victims) -> None:
    """A program at sysctls that runs after KRIe's own one, and gives the kernel another value than that one judged."""
    assert int(victims.run(PROGRAM + REPLACES, "0").stdout) >= 0
    (line,) = journal.exactly("runtime_integrity.bpf", 1)
    assert (line["event"]["prog_type"], line["event"]["helpers"]) == ("cgroup_sysctl", ["sysctl_set_new_value"])
    assert [each["id"] for each in line["decision"]["rules"]] == ["BPF001", "BPF002", "BPF008"]


UNREAD = """
import mmap, tempfile
file = tempfile.TemporaryFile()
file.write(code.ljust(4096, b"\\0"))
file.flush()
mapping = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE)
place = ctypes.addressof(ctypes.c_char.from_buffer(mapping))  # none of it was touched: the page is not there yet
struct.pack_into("=Q", buffer, 8, place)
print(libc.syscall(321, 5, ctypes.byref(buffer), 120))
"""


def test_instructions_that_are_not_in_memory_yet(journal: JournalOfVictims, victims: Victims) -> None:
    """The kernel fetches them; a program cannot, where it does not see the kernel's own copy."""
    victims.run(PROGRAM + UNREAD, "109")
    (line,) = journal.exactly("runtime_integrity.bpf", 1)
    rules = [each["id"] for each in line["decision"]["rules"]]
    if line["event"]["helpers_known"]:
        assert (line["event"]["helpers"], rules) == (["send_signal"], ["BPF001", "BPF002"])
    else:
        assert (line["event"]["helpers"], rules) == ([], ["BPF001", "BPF007"])


AT_A_TIME = """
import threading
start = threading.Barrier(300)

def load():
    start.wait()
    libc.syscall(321, 5, ctypes.byref(buffer), 120)

threads = [threading.Thread(target=load) for _ in range(300)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""


def test_many_loads_at_a_time_do_not_hide_each_other(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run(PROGRAM + AT_A_TIME, "109", "2000")
    for line in journal.exactly("runtime_integrity.bpf", 300, helpers=["send_signal"], helpers_known=True):
        assert [each["id"] for each in line["decision"]["rules"]] == ["BPF001", "BPF002"]


def test_a_scan_that_cannot_go_on_says_so(agent: RunningAgent, journal: JournalOfVictims, victims: Victims) -> None:
    """Somebody takes the program that goes on with the scan out of its map."""
    with slots_emptied(agent.process.pid):
        victims.run(LOAD, "109")
    (line,) = journal.exactly("runtime_integrity.bpf", 1)
    assert (line["event"]["attr_known"], line["event"]["helpers_known"]) == (True, False)
    assert [each["id"] for each in line["decision"]["rules"]] == ["BPF001", "BPF007"]


def test_bpf_map_access_is_left_out(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run("libc.syscall(321, 1, ctypes.create_string_buffer(32), 32); libc.syscall(321, 11, None, 0)")
    (line,) = journal.exactly("runtime_integrity.bpf", 1, command="prog_get_next_id")
    assert line["decision"]["rules"] == []


def test_own_activity_is_left_out(agent: RunningAgent) -> None:
    agent.settle()
    for kind in ("bpf", "ptrace", "sysctl_write"):
        assert agent.lines(f"runtime_integrity.{kind}", lambda line: line["process"]["tgid"] == agent.process.pid) == []


SYSCTL = """
path, text, position = sys.argv[1], sys.argv[2], int(sys.argv[3])
file = os.open("/proc/sys/" + path, os.O_RDWR)
try:
    os.pwrite(file, text.encode(), position)
except OSError as error:
    print(error.errno)
"""


@pytest.fixture
def core_uses_pid() -> Path:
    return Path("/proc/sys/kernel/core_uses_pid")


def test_sysctl_write(journal: JournalOfVictims, victims: Victims, core_uses_pid: Path) -> None:
    old = core_uses_pid.read_text()
    victims.run(SYSCTL, "kernel/core_uses_pid", old, "0")
    (line,) = journal.exactly("runtime_integrity.sysctl_write", 1)
    assert line["event"] == {
        "new_int": int(old),
        "old_int": int(old),
        "file_pos": 0,
        "length": len(old),
        "name": "kernel/core_uses_pid",
        "old": old,
        "new": old,
        "change": "same",
        "name_truncated": False,
        "old_truncated": False,
        "new_truncated": False,
        "new_parsed": True,
        "old_parsed": True,
    }
    assert line["decision"]["action"] == "allow"


@pytest.mark.parametrize(
    ("text", "number"),
    [(" 1", 1), ("0x1", 1), ("-1", -1), ("1 1", 1), ("1x", None), ("", None), ("1" + " " * 70, 1)],
)
def test_sysctl_numbers(
    journal: JournalOfVictims, victims: Victims, core_uses_pid: Path, text: str, number: int | None
) -> None:
    old = core_uses_pid.read_text()
    try:
        victims.run(SYSCTL, "kernel/core_uses_pid", text, "0")
    finally:
        core_uses_pid.write_text(old)
    (line,) = journal.exactly("runtime_integrity.sysctl_write", 1)
    assert (line["event"]["new_parsed"], line["event"]["new_int"]) == (number is not None, number or 0)
    assert line["event"]["new_truncated"] is (len(text) > 64)


def test_sysctl_reads_and_other_names(journal: JournalOfVictims, victims: Victims) -> None:
    victims.execute(["cat", "/proc/sys/kernel/core_uses_pid"])
    journal.none("runtime_integrity.sysctl_write")


def test_a_weakened_sysctl_would_be_refused_and_is_not(journal: JournalOfVictims, victims: Victims) -> None:
    path = Path("/proc/sys/kernel/randomize_va_space")
    assert path.read_text() == "2\n"
    try:
        victims.run(SYSCTL, "kernel/randomize_va_space", "1\n", "0")
        assert path.read_text() == "1\n"  # observe touches nothing
    finally:
        path.write_text("2\n")
    (line,) = journal.exactly("runtime_integrity.sysctl_write", 1)
    assert fired(line) == [("SYSCTL001", "override")]
    assert (line["mode"], line["would"], line["done"]) == ("observe", ["override"], [])


SHORT = """
import shutil, subprocess, tempfile
for number in range(50):
    with tempfile.TemporaryDirectory() as folder:
        tool = f"{folder}/tool-{number}"
        shutil.copy("/bin/dd", tool)
        subprocess.run([tool, "if=/proc/sys/kernel/core_uses_pid", "of=/proc/sys/kernel/core_uses_pid"],
                       check=True, stderr=subprocess.DEVNULL)
"""


def test_short_lived_processes_are_known(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run(SHORT)
    lines = journal.exactly("runtime_integrity.sysctl_write", 50)
    names = [Path(line["process"]["exe"]).name for line in lines]
    assert names == [f"tool-{number}" for number in range(50)]
    assert all(line["process"]["exe_known"] for line in lines)
    assert {line["process"]["parent"]["exe"] for line in lines} == {os.path.realpath(sys.executable)}
