"""However a protected sysctl is written, and whatever the agent does meanwhile, the write is refused. In guests."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from krie.agent.admin import ask
from krie.testing.agent import RunningAgent

from ..enforcing import Run
from .answers import of

pytestmark = pytest.mark.needs("guest", "kprobe")
KIND, PROTECTED = "runtime_integrity.sysctl_write", Path("/proc/sys/kernel/kptr_restrict")
WAYS = f"""
import json, mmap, struct, threading
PATH = {str(PROTECTED)!r}
source = os.memfd_create("source")
os.write(source, b"0\\n")

def protected(path=PATH):
    return os.open(path, os.O_WRONLY)

def spliced():
    read, write = os.pipe()
    os.write(write, b"0\\n")
    return os.splice(read, protected(), 2)

def by_a_ring():
    '''IORING_OP_WRITE.'''
    parameters = ctypes.create_string_buffer(120)
    ring = libc.syscall(425, 4, parameters)
    if ring < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    _, tail, _, _, _, _, array = struct.unpack_from("7I", parameters, 40)
    head_of_answers = struct.unpack_from("10I", parameters, 80)[5]
    queue, entries = mmap.mmap(ring, 4096), mmap.mmap(ring, 256, offset=0x10000000)
    zero = ctypes.create_string_buffer(b"0\\n")
    entries[:64] = struct.pack("<BBHiQQI", 22 + 1, 0, 0, protected(), 0, ctypes.addressof(zero), 2).ljust(64, bytes(1))
    queue[array : array + 4] = bytes(4)
    queue[tail : tail + 4] = struct.pack("I", 1)
    assert libc.syscall(426, ring, 1, 1, 1, 0, 0) == 1
    (answer,) = struct.unpack_from("i", queue, head_of_answers + 8)
    if answer < 0:
        raise OSError(-answer, "io_uring")
    return answer

def elsewhere():
    '''Another procfs, of another pid namespace.'''
    if libc.unshare(0x20020000):
        raise OSError(ctypes.get_errno(), "unshare")
    child = os.fork()
    if not child:
        try:
            assert not libc.mount(b"none", b"/", None, 0x44000, None)
            assert not libc.mount(b"proc", b"/mnt", b"proc", 0, None)
            os.write(protected("/mnt/sys/kernel/kptr_restrict"), b"0")
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
        finally:
            os._exit(255)
    raise OSError(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "elsewhere")

WAYS = [
    lambda: os.writev(protected(), [b"0", b"\\n"]),
    lambda: os.writev(protected(), [b" ", b" 0"]),
    lambda: os.pwritev(protected(), [b"0\\n"], 0),
    lambda: os.pwritev(protected(), [b"0\\n"], 0, os.RWF_SYNC),
    spliced,
    lambda: os.sendfile(protected(), source, 0, 2),
    lambda: os.copy_file_range(source, protected(), 2, 0),
    by_a_ring,
    lambda: os.write(protected("/proc/thread-self/root" + PATH), b"0"),
    elsewhere,
]
found = []
for way in WAYS:
    try:
        answer = way()
    except OSError as error:
        answer = errno.errorcode.get(error.errno, error.errno)
    found.append([answer, open(PATH).read()])
print(json.dumps([os.getpid(), found]))
"""
PERSISTS = f"""
import json
file = os.open({str(PROTECTED)!r}, os.O_WRONLY)
answers = {{}}
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    answer = denied(lambda: os.pwrite(file, b"0", 0))
    answers[answer] = answers.get(answer, 0) + 1
print(json.dumps([answers, open({str(PROTECTED)!r}).read()]))
"""
PROGRAMS = f"""
import json, shutil, subprocess
said = []
for number in range(8):
    program = f"{{sys.argv[1]}}/{{number}}"
    shutil.copy("/bin/sh", program)
    done = subprocess.run([program, "-c", "echo 0 > {PROTECTED}"], start_new_session=True, stderr=subprocess.DEVNULL)
    said.append([done.returncode, open({str(PROTECTED)!r}).read()])
print(json.dumps(said))
"""
REFUSALS = {"EPERM", "EINVAL", "EXDEV", 1}
"""Of KRIe; of a kernel that does not write such files in this way."""


def test_each_way_is_refused(enforcing: RunningAgent, victim: Run) -> None:
    PROTECTED.write_text("1")
    tgid, found = json.loads(victim(WAYS).stdout)
    assert [value for _, value in found] == ["1\n"] * len(found)
    assert {answer for answer, _ in found} <= REFUSALS, found
    lines = of(enforcing, tgid, KIND)
    assert len(lines) >= 5
    assert {(line["decision"]["tier"], *line["done"]) for line in lines} == {("kernel", "refused")}


@pytest.mark.long
def test_none_passes_while_policies_are_reloaded(enforcing: RunningAgent, victim: Run) -> None:
    PROTECTED.write_text("1")
    before = len(enforcing.lines("krie.policy"))
    with ThreadPoolExecutor(1) as pool:
        persists = pool.submit(victim, PERSISTS, "20")
        while not persists.done():
            enforcing.process.send_signal(signal.SIGHUP)
            before += 1
            enforcing.wait("krie.policy", count=before)
        answers, value = json.loads(persists.result().stdout)
    print(answers)
    assert (list(answers), value) == (["1"], "1\n")
    assert answers["1"] > 100


def test_refusals_trip_no_breaker(enforcing: RunningAgent, victim: Run, tmp_path: Path) -> None:
    """By more programs than a breaker allows."""
    PROTECTED.write_text("1")
    said = json.loads(victim(PROGRAMS, str(tmp_path)).stdout)
    assert len(said) == 8
    assert all(status != 0 and value == "1\n" for status, value in said), said
    enforcing.settle()
    tripped = [each["rule"] for each in ask(enforcing.run_dir, {"ask": "status"}, enforcing.timeout_s)["breakers"]]
    assert "SYSCTL001" not in tripped
