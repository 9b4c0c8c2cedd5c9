"""What comparisons find: variables, modules and credentials changed behind the kernel's back. In guests only."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule, address_of
from krie.testing.victims import Victims

from .judges import NO_SYMBOL, SCAN_S
from .last_words import last_words
from .seccomp import CONFINE, CONFINED_LEGALLY

pytestmark = [pytest.mark.needs("test_module"), pytest.mark.needs("fentry", "fmod_ret")]


@pytest.fixture
def comparing(enforcer: RunningAgent) -> RunningAgent:
    """One that enforces, and compares often."""
    return enforcer


def _told(agent: RunningAgent, kind: str, **fields: object) -> list[Line]:
    return agent.lines(
        f"runtime_integrity.{kind}", lambda line: all(line["event"][name] == value for name, value in fields.items())
    )


def _wait(agent: RunningAgent, kind: str, **fields: object) -> Line:
    found = agent.wait(
        f"runtime_integrity.{kind}", lambda line: all(line["event"][name] == value for name, value in fields.items())
    )
    return found[-1]


def test_missing_symbols_are_told_once(comparing: RunningAgent) -> None:
    line = _wait(comparing, "kernel_parameter", symbol=NO_SYMBOL)
    assert (line["event"]["state"], line["event"]["reason"]) == ("unwatched", "this kernel lists no such symbol")
    assert line["decision"]["rules"] == []


def test_ordinary_kernels_differ_in_nothing(comparing: RunningAgent) -> None:
    time.sleep(2 * SCAN_S)
    assert _told(comparing, "kernel_parameter", state="differs") == []
    assert _told(comparing, "hidden_module") == []


def test_a_variable_that_is_written_is_told_until_it_agrees_again(
    comparing: RunningAgent, test_module: TestModule
) -> None:
    address = address_of("panic_on_oops")
    before = Path("/proc/sys/kernel/panic_on_oops").read_text().strip()
    path = address_of("modprobe_path")
    with test_module.effect("write", path, b"/tmp/x\0".hex()):
        line = _wait(comparing, "kernel_parameter", symbol="modprobe_path", state="differs")
        assert (line["event"]["found"], line["event"]["address"]) == ("/tmp/x", f"{path:#018x}")
        assert line["event"]["expected"].endswith("/modprobe")
        assert [each["id"] for each in line["decision"]["rules"]] == ["KPARAM002"]
    _wait(comparing, "kernel_parameter", symbol="modprobe_path", state="agrees")
    assert len(_told(comparing, "kernel_parameter", symbol="modprobe_path")) == 2
    # A near miss: what becomes stronger, or is written as it was.
    with test_module.effect("write", address, (int(before) + 1).to_bytes(4, "little").hex()):
        time.sleep(2 * SCAN_S)
    comparing.settle()
    assert _told(comparing, "kernel_parameter", symbol="panic_on_oops") == []


def test_hooks_of_security_modules_are_compared(comparing: RunningAgent, test_module: TestModule) -> None:
    for symbol in ("security_hook_heads", "static_calls_table"):
        try:
            address = address_of(symbol)
        except KeyError:
            continue
        with test_module.effect("write", address + 8, "ff" * 4):  # of hooks that nobody calls here
            line = _wait(comparing, "kernel_parameter", symbol=symbol, state="differs")
        assert 8 <= line["event"]["offset"] < 12
        assert [each["id"] for each in line["decision"]["rules"]] == ["KPARAM003"]
        return
    pytest.fail("this kernel has neither")


def test_a_switch_is_put_back(comparing: RunningAgent, test_module: TestModule) -> None:
    address = address_of("ftrace_enabled")
    with test_module.effect("write", address, "00000000"):
        line = _wait(comparing, "kernel_parameter", symbol="ftrace_enabled", state="differs")
        assert (line["mode"], line["done"]) == ("enforce", ["restored"])
        assert Path("/proc/sys/kernel/ftrace_enabled").read_text() == "1\n"


@pytest.mark.parametrize(("way", "missing"), [("list", {"list", "proc"}), ("kset", {"kset"})])
def test_a_module_that_hides(comparing: RunningAgent, test_module: TestModule, way: str, missing: set[str]) -> None:
    before = len(_told(comparing, "hidden_module"))
    with test_module.effect("hide", way):
        line = comparing.wait("runtime_integrity.hidden_module", count=before + 1)[-1]
        time.sleep(2 * SCAN_S)
    event = line["event"]
    # kallsyms may go on naming it, for what ftrace remembers of its init functions.
    assert (event["name"], set(event["missing"]) - {"kallsyms"}) == ("krie_test", missing)
    assert [each["id"] for each in line["decision"]["rules"]] == ["HIDDEN001"]
    comparing.settle()
    assert len(_told(comparing, "hidden_module")) == before + 1


def test_a_module_in_memory_alone(comparing: RunningAgent, test_module: TestModule) -> None:
    before = len(_told(comparing, "hidden_module"))
    with test_module.effect("hide", "list"), test_module.effect("hide", "kset"):
        line = comparing.wait(
            "runtime_integrity.hidden_module",
            lambda line: "memory" in line["event"]["seen"] and "kset" in line["event"]["missing"],
        )[-1]
    assert line["event"]["name"] == "krie_test"
    assert len(_told(comparing, "hidden_module")) <= before + 2  # it may be seen between both


def test_modules_that_come_and_go_do_not_hide(comparing: RunningAgent, test_module: TestModule) -> None:
    before = len(_told(comparing, "hidden_module"))
    end = time.monotonic() + 3 * SCAN_S
    while time.monotonic() < end:
        test_module.unload()
        test_module.load()
    comparing.settle()
    assert len(_told(comparing, "hidden_module")) == before


TAMPER = """
device = os.open("/dev/krie_test", os.O_WRONLY)
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
os.write(device, sys.argv[1].encode())
%s
"""
EXEC = 'os.execv("/bin/echo", ["echo", "went on"])'
SETUID = 'os.setuid(0); print("went on")'
MADE = Path("/tmp/krie-tampered")
WRITE = f'os.open("{MADE}", os.O_WRONLY | os.O_CREAT); print("went on")'
FORK = 'child = os.fork(); child or os.execv("/bin/echo", ["echo", "went on"]); os.waitpid(child, 0); os._exit(0)'
CLONE = "libc.syscall(56, 0x10000011, 0, 0, 0, 0)"  # CLONE_NEWUSER | SIGCHLD


@pytest.mark.parametrize(
    ("how", "changed", "then", "operation"),
    [
        ("users", {"users"}, EXEC, "prepare"),
        ("users", {"users"}, SETUID, "prepare"),
        ("pointer", {"users", "pointer"}, WRITE, "write"),
        ("users", {"users"}, FORK, "prepare"),
        ("users", {"users"}, FORK.replace("os.fork()", CLONE), "prepare"),
    ],
)
def test_tampered_credentials_end_their_process(
    comparing: RunningAgent,
    test_module: TestModule,
    victims: Victims,
    how: str,
    changed: set[str],
    then: str,
    operation: str,
) -> None:
    said = last_words(victims, TAMPER % then, f"tamper {how}")
    assert said == ""  # it was root, and could do nothing with it
    comparing.settle()
    (line,) = comparing.lines("runtime_integrity.cred_tamper", victims.mine)
    event = line["event"]
    assert set(event["changed"]) == changed
    # Whoever reads may write, too: the time of the last reading; and may be asked for a capability on the way.
    assert event["operation"] in (operation, "write", "capability")
    assert (event["uid_before"], event["euid_now"]) == (65534, 0)
    assert [each["id"] for each in line["decision"]["rules"]] == ["CRED001"]
    assert line["decision"]["tier"] == "kernel"
    assert set(line["done"]) == {"poisoned", "killed"} | ({"refused"} if event["operation"] != "write" else set())
    assert not MADE.exists()  # refused to the poisoned


SWAP = """
device = os.open("/dev/krie_test", os.O_WRONLY)
assert libc.%s >= 0
os.write(device, b"tamper %s")
os.execv("/bin/echo", ["echo", "went on"])
"""


@pytest.mark.parametrize(
    ("legal", "what", "changed"),
    [
        ("unshare(0x10000000)", "namespace", "user_namespace"),  # CLONE_NEWUSER
        ("syscall(250, 1, 0)", "keyring", "keyrings"),  # keyctl(KEYCTL_JOIN_SESSION_KEYRING)
    ],
)
def test_what_credentials_refer_to_is_compared(
    comparing: RunningAgent, test_module: TestModule, victims: Victims, legal: str, what: str, changed: str
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as ended:
        victims.run(SWAP % (legal, what))
    assert (ended.value.stdout, ended.value.returncode) == ("", -signal.SIGKILL)
    comparing.settle()
    (line,) = comparing.lines("runtime_integrity.cred_tamper", victims.mine)
    assert line["event"]["changed"] == [changed]


LEGAL = f"""
import subprocess
for command in (["su", "-s", "/bin/true", "nobody"], ["unshare", "-U", "true"], ["setpriv", "--reuid=65534", "true"],
                ["newgrp", "-"], ["capsh", "--drop=cap_net_raw", "--", "-c", "true"], ["sudo", "-n", "true"],
                ["keyctl", "session", "-", "true"], ["chpst", "-u", "nobody", "true"]):
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=20, check=False, capture_output=True)
    except (FileNotFoundError, subprocess.TimeoutExpired):  # sudo waits for a name server, where there is none
        pass
for _ in range(8):
    child = libc.syscall(56, 0x10000011, 0, 0, 0, 0)  # CLONE_NEWUSER | SIGCHLD
    child or os.execv("/bin/true", ["true"])
    os.waitpid(child, 0)
import threading
memory = os.memfd_create("memory")
def change():
    libc.syscall(117, 1000, 1000, 1000)  # one thread's own
    os.open(f"/proc/self/fd/{{memory}}", os.O_WRONLY)
for _ in range(8):
    thread = threading.Thread(target=change)
    thread.start()
    thread.join()
while len(os.listdir("/proc/self/task")) > 1:
    pass  # setresuid(3) of the C library would abort because of a thread that may not do it, and is about to end
for _ in range(300):
    os.setresuid(1000, 1000, 0)
    os.setresuid(0, 0, 0)
    os.close(os.open(f"/proc/self/fd/{{memory}}", os.O_WRONLY))
{CONFINE}
{CONFINED_LEGALLY}
"""


def test_legal_changes_of_credentials_are_silent(comparing: RunningAgent, victims: Victims) -> None:
    victims.run(LEGAL)
    comparing.settle()
    assert comparing.lines("runtime_integrity.cred_tamper", victims.mine) == []


RING = """
import mmap, struct
def new_ring(flags, other=0):
    parameters = ctypes.create_string_buffer(struct.pack("7I", 0, 0, flags, 0, 1000, 0, other), 120)
    number = libc.syscall(425, 4, parameters)
    assert number >= 0, os.strerror(ctypes.get_errno())
    return number, struct.unpack_from("7I", parameters, 40)
def make(ring, path):
    number, (_, tail, _, _, _, _, array) = ring
    queue = mmap.mmap(number, array + 16)
    entries = mmap.mmap(number, 256, offset=0x10000000)
    path = ctypes.create_string_buffer(path.encode())
    openat, by_a_worker = 18, 16
    request = (openat, by_a_worker, 0, -100, 0, ctypes.addressof(path), 0o600, os.O_CREAT | os.O_WRONLY)
    entries[:64] = struct.pack("<BBHiQQII", *request).ljust(64, bytes(1))
    queue[array : array + 4] = bytes(4)
    queue[tail : tail + 4] = struct.pack("I", 1)
    assert libc.syscall(426, number, 1, 1, 3, 0, 0) == 1  # and wait for the answer
"""
# Two rings of which the kernel's thread of the first serves both: for the second it works, and makes its workers, as
# whoever asked for that one.
FOR_OTHERS = """
first = new_ring(0x2)  # IORING_SETUP_SQPOLL
os.setresgid(1000, 1000, 1000)
second = new_ring(0x22, first[0])  # and IORING_SETUP_ATTACH_WQ
make(second, sys.argv[1])
os.setresgid(0, 0, 0)
print(*(open(f"/proc/self/task/{each}/comm").read().strip() for each in os.listdir("/proc/self/task")))
"""
BY_A_WORKER = f"""
ring = new_ring(0)
{TAMPER % f'make(ring, "{MADE}")'}
"""


def test_workers_of_io_uring_have_what_their_makers_had_legally(
    comparing: RunningAgent, test_module: TestModule, victims: Victims, tmp_path: Path
) -> None:
    threads = victims.run(RING + FOR_OTHERS, str(tmp_path / "made")).stdout
    assert (tmp_path / "made").stat().st_gid == 1000
    comparing.settle()
    assert comparing.lines("runtime_integrity.cred_tamper", victims.mine) == []
    if "iou-wrk" not in threads:  # before Linux 5.12 they were the kernel's own threads: a limit, told in the docstring
        victims.run(RING + BY_A_WORKER, "tamper users")
        MADE.unlink()
        comparing.settle()
        assert comparing.lines("runtime_integrity.cred_tamper", victims.mine) == []
        return
    with pytest.raises(subprocess.CalledProcessError) as ended:
        victims.run(RING + BY_A_WORKER, "tamper users")
    assert ended.value.returncode == -signal.SIGKILL
    comparing.settle()
    (line,) = comparing.lines("runtime_integrity.cred_tamper", victims.mine)
    assert (line["event"]["operation"], line["event"]["uid_before"]) == ("write", 65534)
    assert not MADE.exists()
