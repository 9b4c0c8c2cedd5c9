"""What is decided is done, seen from the victim's side: refused, or killed. In guests only."""

import subprocess

import pytest
from krie.kernel.features import Features
from krie.testing.agent import RunningAgent

from ..enforcing import KILLED, REFUSED, Run
from .answers import of

pytestmark = pytest.mark.needs("guest", "kprobe")


def test_a_sysctl_write_is_refused_from_the_second_on(enforcing: RunningAgent, victim: Run, features: Features) -> None:
    expected = 13 if features.set_retval else 1  # older kernels give EPERM, whatever the rule asks for
    code = f"print(os.getpid(), write({REFUSED}), until(lambda: write(7), {expected}))"
    tgid, first, second = map(int, victim(code).stdout.split())
    assert (first, second) == (0, expected)
    lines = of(enforcing, tgid, "runtime_integrity.sysctl_write")
    assert (lines[0]["mode"], lines[0]["done"], lines[0]["would"]) == ("enforce", ["bound"], [])
    assert lines[-1]["done"] == ["refused"]
    assert [line["done"] for line in lines[1:-1]] == [[]] * (len(lines) - 2)
    other = victim(f"print(write({REFUSED + 50}))")  # another process is not bound
    assert other.stdout == "0\n"


def test_the_first_occurrence_is_refused_by_the_kernels_own_decision(
    enforcing: RunningAgent, named_victim: Run
) -> None:
    code = "print(os.getpid(), called(321, 22, bytes(8), 8), called(101, 0, 0, 0, 0))"
    tgid, frozen, traced = map(int, named_victim(code).stdout.split())
    assert (frozen, traced) == (13, 13)
    for kind, rule in (("bpf", "SITE009"), ("ptrace", "SITE011")):
        (line,) = of(enforcing, tgid, f"runtime_integrity.{kind}")
        assert (line["decision"]["tier"], line["done"]) == ("kernel", ["refused"])
        assert rule in {each["id"] for each in line["decision"]["rules"]}


def test_the_first_operation_of_each_kind_is_refused(enforcing: RunningAgent, named_victim: Run) -> None:
    code = """
import socket, struct
made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
dummy = struct.pack("=IIQQQQQ", 1, 64, 9, 0, 0, 0, 0x60)
file = os.open("/bin/true", os.O_RDONLY)
print(os.getpid(), denied(lambda: made.setsockopt(socket.SOL_SOCKET, 44, 1)), called(298, dummy, 0, -1, -1, 8),
      called(313, file, b"", 0), called(175, bytes(4096), 4096, b""), called(176, b"krie_no_module", 0o4000),
      called(176, b"krie_no_other", 0o4000))
"""
    tgid, *errors = map(int, named_victim(code).stdout.split())
    assert errors == [13, 13, 13, 13, 1, 2]  # the kernel says EPERM of a capability, whatever the rule asks for
    for kind, rule, count in (
        ("socket_filter", "SITE012", 1),
        ("perf_event_open", "SITE013", 1),
        ("module_load", "SITE014", 2),
        ("module_unload", "SITE015", 1),
    ):
        refused = [line for line in of(enforcing, tgid, f"runtime_integrity.{kind}") if line["done"]]
        assert [(line["decision"]["tier"], line["done"]) for line in refused] == [("kernel", ["refused"])] * count
        assert all(rule in {each["id"] for each in line["decision"]["rules"]} for line in refused)


def test_the_first_occurrence_is_killed_where_the_kernel_decides(enforcing: RunningAgent, named_victim: Run) -> None:
    code = "print(os.getpid(), flush=True); called(321, 23, bytes(8), 8); print('went on', flush=True)"
    for _ in range(3):
        with pytest.raises(subprocess.CalledProcessError) as killed:
            named_victim(code)
        assert killed.value.returncode == -9
        assert killed.value.stdout.split() == [killed.value.stdout.strip()]  # its tgid, and nothing after it
        (line,) = of(enforcing, int(killed.value.stdout), "runtime_integrity.bpf")
        assert (line["decision"]["tier"], line["done"]) == ("kernel", ["refused", "poisoned", "killed"])


def test_bpf_and_ptrace_are_refused_with_the_rules_error(enforcing: RunningAgent, victim: Run) -> None:
    make_map = """
import struct
attributes = ctypes.create_string_buffer(struct.pack("=IIIIIII16s", 2, 4, 8, 1, 0, 0, 0, b"krie-victim"), 72)
print(os.getpid(), until(lambda: called(321, 0, attributes, 72), 13))
"""
    tgid, error = map(int, victim(make_map).stdout.split())
    assert error == 13
    lines = of(enforcing, tgid, "runtime_integrity.bpf")
    assert (lines[0]["done"], lines[-1]["done"][0]) == (["bound"], "refused")  # and bound again, if it still runs
    look = """
libc.prctl(15, b"krie-victim", 0, 0, 0)
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
buffer = ctypes.create_string_buffer(8)
vector = (ctypes.c_ulong * 2)(ctypes.addressof(buffer), 8)
print(os.getpid(), until(lambda: called(310, child, vector, 1, vector, 1, ctypes.c_ulong(0)), 1))
os.kill(child, 9)
os.waitpid(child, 0)
"""
    tgid, error = map(int, victim(look).stdout.split())
    assert error == 1  # what process_vm_readv() makes of EACCES
    lines = of(enforcing, tgid, "runtime_integrity.ptrace")
    assert (lines[0]["done"], lines[-1]["done"][0]) == (["bound"], "refused")  # and bound again, if it still runs


def test_a_process_is_killed(enforcing: RunningAgent, victim: Run) -> None:
    with pytest.raises(subprocess.CalledProcessError) as killed:
        victim(f"print(os.getpid(), flush=True); write({KILLED}); time.sleep(60)")
    assert killed.value.returncode == -9
    (line,) = of(enforcing, int(killed.value.stdout), "runtime_integrity.sysctl_write")
    assert line["done"] in (["killed"], ["signalled"])
