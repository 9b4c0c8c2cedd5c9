"""What is told of performance events, and of the probes that they put into the kernel and into programs."""

import pytest
from krie.testing.fixtures import JournalOfVictims
from krie.testing.victims import Victims

from .lines import rules_of
from .operations import PREFIX

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
    assert (line["event"]["other_user"], line["event"]["kernel"], rules_of(line)) == (False, False, set())


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
    assert rules_of(opened) == {"PERF001"}
    lines = [line for line in journal.lines(f"{PREFIX}probe_register") if line["event"]["mechanism"] != "trampoline"]
    operations = [line["event"]["operation"] for line in lines]
    assert (operations[0], operations[-1]) == ("register", "unregister")
    assert {"enable", "disable"} >= set(operations[1:-1])
    assert {line["event"]["mechanism"] for line in lines} == {mechanism}
    assert {(line["event"]["symbol"], line["event"]["owner"]) for line in lines} == {("do_exit", "kernel")}
    assert set().union(*map(rules_of, lines)) == set()


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
    assert rules_of(opened) == {"PERF003"}
    lines = journal.exactly(f"{PREFIX}probe_register", 2, mechanism="uprobe", symbol="true", offset=64)
    assert [line["event"]["operation"] for line in lines] == ["register", "unregister"]
    assert lines[0]["event"]["file_ino"] > 0
