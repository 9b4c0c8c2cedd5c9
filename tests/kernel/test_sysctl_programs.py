"""A BPF program behind KRIe's own where sysctls are written: what it could undo, and that nobody gets one there."""

import pytest
from krie.testing.agent import Line, RunningAgent
from krie.testing.fixtures import JournalOfVictims
from krie.testing.victims import Victims

ATTACHES = """
import contextlib, ctypes, os, resource, struct
libc = ctypes.CDLL(None, use_errno=True)
# Before 3ac1f01b43b6 (5.11) programs count as locked memory, with those of all of root's processes.
with contextlib.suppress(ValueError):  # others need it not, and a container may refuse
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
FILE_POS = [(0xB7, 2, 0, 0), (0x63, 0x21, 4, 0), (0xB7, 0, 0, 1), (0x95, 0, 0, 0)]  # ctx->file_pos = 0; return 1
code = b"".join(struct.pack("<BBhi", *each) for each in FILE_POS)
instructions, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")

def bpf(command, attributes):
    result = libc.syscall(321, command, ctypes.create_string_buffer(attributes.ljust(120, b"\\0"), 120), 120)
    return result if result >= 0 else -ctypes.get_errno()

program = bpf(5, struct.pack("=IIQQ44xI", 23, len(FILE_POS), ctypes.addressof(instructions),
                             ctypes.addressof(licence), 18))
root = next(line.split()[1] for line in open("/proc/mounts") if line.split()[2] == "cgroup2")
group = os.path.join(root, f"of-a-test-{os.getpid()}")
os.mkdir(group)
directory = os.open(group, os.O_RDONLY)
try:
    link = bpf(28, struct.pack("=iIII", program, directory, 18, 0))
    by_command = bpf(8, struct.pack("=IiII", directory, program, 18, 2))  # BPF_F_ALLOW_MULTI
    print(program, link, by_command)
    if by_command == 0:
        bpf(9, struct.pack("=3I", directory, program, 18))
    if link >= 0:
        os.close(link)
finally:
    os.close(directory)
    os.rmdir(group)
"""


def commands(lines: list[Line]) -> list[str]:
    return [
        line["event"]["command"] for line in lines if "BPF008" in {each["id"] for each in line["decision"]["rules"]}
    ]


def test_loading_and_attaching_one_is_told(journal: JournalOfVictims, victims: Victims) -> None:
    program, link, by_command = map(int, victims.run(ATTACHES).stdout.split())
    assert program >= 0
    assert link >= 0
    assert by_command in {0, -1}  # the kernel lets nobody do both
    lines = journal.lines("runtime_integrity.bpf")
    assert commands(lines) == ["prog_load", "link_create", "prog_attach"]
    assert [line["event"]["prog_type"] for line in lines if line["event"]["object"] == "prog"][:2] == [
        "cgroup_sysctl"
    ] * 2


@pytest.mark.needs("guest", "lsm")
def test_loading_one_is_refused(enforcer: RunningAgent, victims: Victims) -> None:
    """Without a helper, which is why no other rule has anything against it."""
    program, *others = map(int, victims.run(ATTACHES).stdout.split())
    assert program == -1
    assert all(each < 0 for each in others)
    enforcer.settle()
    loaded = enforcer.lines("runtime_integrity.bpf", victims.mine)[0]
    assert (commands([loaded]), loaded["done"]) == (["prog_load"], ["refused"])
    assert loaded["decision"]["tier"] == "kernel"
