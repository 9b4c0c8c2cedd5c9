"""Locked functions: who calls them from elsewhere is killed, who calls them as the kernel does is not noticed."""

import errno
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from krie.plugins.cfi.declaration import shipped
from krie.plugins.cfi.derivation import Code
from krie.plugins.cfi.live import BOUNDS, Kcore, code_of, layout, locate
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule, address_of

from . import acts
from .overlays import mounted, overlaid

pytestmark = pytest.mark.needs("guest", "kprobe")
CALLER = "cfi.caller"
ACT = "cfi.act"
ROUNDS = 10
WRITE, CLONE_NEWUSER = 1, 0x10000000
TRACEFS = Path("/sys/kernel/tracing")
EPILOGUE = re.compile(
    rb"(?:\x48[\x63\x89][\xc0-\xff]|\x48\x98|[\x31\x89][\xc0-\xff]|([\x5b\x5d]|\x41[\x5c-\x5f])|\x48\x83\xc4(.))",
    re.DOTALL,
)
"""Moves between registers, of the kind that come before a return; a word from the stack; several."""
Lacks = Callable[[str], NoReturn]
Record = Callable[[str, object], None]

ATTACKS = """
import os, sys
rounds, folder, command = int(sys.argv[1]), sys.argv[2], sys.argv[3]
device = os.open("/dev/krie_test", os.O_WRONLY)
killed = ran = 0
for round in range(rounds):
    child = os.fork()
    if not child:
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        os.write(device, command.encode())
        os.close(os.open(f"{folder}/{round}", os.O_CREAT | os.O_WRONLY))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9
    ran += os.WIFEXITED(status)
print(killed, ran, len(os.listdir(folder)))
"""

EVERYDAY = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(8, 1); libc.prctl(28, 0)                      # PR_SET_KEEPCAPS, PR_SET_SECUREBITS: by a pointer
child = os.fork()
if not child:                                            # a task work of the parent's, by a pointer
    libc.syscall(250, 1, 0)                              # KEYCTL_JOIN_SESSION_KEYRING
    os._exit(libc.syscall(250, 18) != 0)                 # KEYCTL_SESSION_TO_PARENT
os.waitpid(child, 0)
libc.syscall(250, 0, -1, 1); libc.syscall(250, 1, 0)     # keyrings of the thread and of the session
os.setgroups([1, 2])
for call in (122, 123):                                  # setfsuid, setfsgid
    libc.syscall(call, 7); libc.syscall(call, 0)
uts = os.open("/proc/self/ns/uts", os.O_RDONLY)
libc.syscall(308, uts, 0)                                # setns
for which in (0x10000000, 0x04000000, 0x00020000):       # unshare: user, UTS, mount
    child = os.fork()
    if not child:
        os._exit(libc.syscall(272, which) != 0)
    os.waitpid(child, 0)
os.setresgid(7, 7, 0); os.setresgid(0, 0, 0); os.setregid(0, 0); os.setgid(0)
for uid in range(50):
    os.setresuid(uid, uid, 0); os.setresuid(0, 0, 0); os.setreuid(0, 0); os.setuid(0)
header, data = (ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)()
libc.syscall(125, header, data); libc.syscall(126, header, data)  # capget, capset
"""
SHELL = """
for n in 1 2 3; do su -s /bin/sh nobody -c id || exit; done
unshare --mount --uts --ipc --net --pid --fork true && unshare --user --map-root-user --net true || exit
echo '|/bin/true' > /proc/sys/kernel/core_pattern; sh -c 'kill -ABRT $$'
modprobe dummy numdummies=1 && modprobe -r dummy; true
"""


@pytest.fixture(scope="module")
def locked(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("locked")
    folder.chmod(0o700)
    with RunningAgent(
        folder,
        plugins={"cfi": {"mode": "enforce", "required": True, "acts": True}, "smep_smap": {"traps": False}},
        agent={"scan_interval_s": 5},
        enforcement={"guard": False, "breaker_processes": 10_000},
    ) as agent:
        agent.wait("cfi.lock")  # where this build has no lock file, nothing is locked before
        yield agent


def checks(agent: RunningAgent) -> int:
    return sum(line["event"]["checks"] for line in agent.lines("cfi.activity"))


def test_the_callers_are_those_of_the_lock_file(locked: RunningAgent, lacks: Lacks) -> None:
    (line,) = locked.wait("cfi.lock", count=1)
    event = line["event"]
    print(event, file=sys.stderr)
    if event["source"] == "derived":
        lacks("lock_file: of this build: krie cfi derive --output plugins/cfi/locks makes it")
    assert (event["differing"], event["first"]) == (0, "")
    assert event["callers"] == event["filed"] > 40
    assert event["locked"] >= 6
    assert line["decision"]["rules"] == []


def test_everyday_calls_are_silent(locked: RunningAgent, record_property: Record) -> None:
    before = len(locked.lines(CALLER))
    subprocess.run([sys.executable, "-I", "-c", EVERYDAY], check=True)
    done = subprocess.run(["/bin/sh", "-c", SHELL], capture_output=True, text=True)
    assert done.returncode == 0, done
    locked.wait("cfi.activity", lambda _: checks(locked) >= 200)
    locked.settle()
    assert locked.lines(CALLER)[before:] == []
    record_property("checks", checks(locked))


def attack(agent: RunningAgent, folder: Path, command: str, rule: str) -> list[Line]:
    """Each is killed by this rule, and makes no file; what was told of them."""
    folder.chmod(0o755)

    def of_it(line: Line) -> bool:
        return rule in [each["id"] for each in line["decision"]["rules"]]

    before = len(agent.lines(CALLER, of_it))
    line = [sys.executable, "-I", "-c", ATTACKS, str(ROUNDS), str(folder), command]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout == f"{ROUNDS} 0 0\n"
    lines = agent.wait(CALLER, of_it, count=before + ROUNDS)[before:]
    assert {(tuple(each["done"]), each["decision"]["tier"]) for each in lines} == {(("poisoned", "killed"), "kernel")}
    assert {each["event"]["function"] for each in lines} == {"commit_creds"}
    return lines


def by_a_module() -> str:
    return f"hijack call {address_of('init_task'):x} 0 {address_of('commit_creds'):x} 0 0 0"


def returning_to(place: int, words: int) -> str:
    return f"hijack forged {address_of('init_task'):x} 0 {address_of('commit_creds'):x} {place:x} 0 {words:x}"


@pytest.fixture(scope="module")
def code() -> Code:
    kcore = Kcore()
    try:
        return code_of(kcore.read, layout(locate(BOUNDS)))
    finally:
        kcore.close()


@pytest.mark.needs("test_module")
def test_a_module_that_makes_root_is_killed(locked: RunningAgent, test_module: TestModule, tmp_path: Path) -> None:
    for line in attack(locked, tmp_path, by_a_module(), "CFI002"):
        event = line["event"]
        assert (event["lock"], event["owner"], event["return_module"]) == ("caller", "module", "krie_test")
        assert {"euid0", "caps", "uid"} == set(event["gain"])
        assert event["certain"] is True


@pytest.mark.needs("test_module")
def test_a_return_behind_another_call_is_killed(
    locked: RunningAgent, test_module: TestModule, tmp_path: Path, code: Code, lacks: Lacks
) -> None:
    """Nothing is wrong with it but that it is no caller: smep_smap is silent."""
    place, words, name = next(elsewhere(code), (0, 0, ""))
    if not place:
        lacks("gadget: a call that a return follows")
    silent = len(locked.lines("smep_smap.register_check"))
    for line in attack(locked, tmp_path, returning_to(place, words), "CFI001"):
        event = line["event"]
        assert (event["lock"], event["owner"], event["certain"]) == ("caller", "kernel", True)
        assert (event["return_symbol"], int(event["return_address"], 16)) == (name, place)
    assert len(locked.lines("smep_smap.register_check")) == silent


@pytest.mark.needs("test_module")
def test_who_forges_the_return_to_a_caller_is_killed_for_the_gain(
    locked: RunningAgent, test_module: TestModule, tmp_path: Path, code: Code, lacks: Lacks
) -> None:
    """The lock on callers takes it for one. It is another system call that the caller belongs to."""
    callers = code.callers(["commit_creds"], {})["commit_creds"].returns
    found = ((each, words) for each in sorted(callers) if (words := returns_after(code, each)) is not None)
    place, words = next(found, (0, 0))
    if not place:
        lacks("gadget: a caller of commit_creds() that returns then")
    for line in attack(locked, tmp_path, returning_to(place, words), "CFI003"):
        event = line["event"]
        assert (event["lock"], event["owner"], event["number"]) == ("path", "kernel", WRITE)
        assert int(event["return_address"], 16) == place
        assert {"euid0", "caps", "uid"} == set(event["gain"])


@pytest.mark.needs("test_module")
def test_a_gain_in_a_foreign_system_call_is_killed(
    locked: RunningAgent, test_module: TestModule, tmp_path: Path
) -> None:
    """The caller is legal, but its system call is another one: it is reached in the middle of write(2)."""
    command = f"hijack inside {address_of('init_task'):x} 0 {address_of('ksys_unshare'):x} {CLONE_NEWUSER:x} 0 0"
    for line in attack(locked, tmp_path, command, "CFI003"):
        event = line["event"]
        assert (event["lock"], event["owner"], event["number"]) == ("path", "kernel", WRITE)
        assert event["return_symbol"].startswith("ksys_unshare+0x")
        assert {"caps", "userns"} == set(event["gain"])


@pytest.fixture
def return_probe() -> Iterator[None]:
    events = TRACEFS / "kprobe_events"
    events.write_text("r:krie_cfi/returns commit_creds\n")
    (TRACEFS / "events/krie_cfi/enable").write_text("1")
    yield
    (TRACEFS / "events/krie_cfi/enable").write_text("0")
    descriptor = os.open(events, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"-:krie_cfi/returns\n")
    os.close(descriptor)


@pytest.mark.needs("test_module")
def test_a_tracer_hides_the_caller_but_no_gain(
    locked: RunningAgent, test_module: TestModule, return_probe: None, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-I", "-c", EVERYDAY], check=True)
    for line in attack(locked, tmp_path, by_a_module(), "CFI003"):
        event = line["event"]
        assert (event["lock"], event["number"]) == ("path", WRITE)
        assert "trampoline" in event["return_symbol"]
    locked.wait("cfi.activity", lambda line: line["event"]["traced"] > ROUNDS)


@pytest.fixture(scope="module")
def place(locked: RunningAgent) -> Iterator[tuple[Path, Path]]:
    """A folder of nobody's with files of several kinds, on a tmpfs; and a hierarchy of cgroups."""
    with tempfile.TemporaryDirectory(prefix="acts-", dir="/run", ignore_cleanup_errors=True) as made:
        top = Path(made)
        top.chmod(0o755)
        group, folder = top / "group", top / "folder"
        group.mkdir()
        folder.mkdir()
        with (
            mounted(group, "-t", "cgroup", "-o", "none,name=krie-acts", "none"),
            mounted(folder, "-t", "tmpfs", "none"),
        ):
            for name in ("mounted", "busy", "moved", "below", "inner", "plain", "mapped"):
                (folder / name).mkdir()
            for name in ("below/file", "below/mode"):
                (folder / name).touch()
            for each in (folder, *folder.rglob("*")):
                os.chown(each, acts.NOBODY, acts.NOBODY)
            os.chown(folder / "plain", 0, 0)
            for name, mode in (("secret", 0o600), ("listed", 0o640), ("groups", 0o660)):
                (folder / name).touch()
                (folder / name).chmod(mode)
            os.chown(folder / "groups", 0, acts.NOBODY)
            entries = ((1, 6, -1), (2, 6, acts.NOBODY), (4, 4, -1), (16, 6, -1), (32, 0, -1))
            listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *each) for each in entries)
            os.setxattr(folder / "listed", "system.posix_acl_access", listed)
            yield folder, group


@pytest.mark.needs("test_module", "fmod_ret")
def test_what_is_done_without_a_right_is_refused(
    locked: RunningAgent, test_module: TestModule, place: tuple[Path, Path]
) -> None:
    """The kernel's own checks say yes; the credentials say no."""
    folder, _ = place
    before = len(locked.lines(ACT))
    with mounted(folder / "busy", "-t", "tmpfs", "none"):
        answers = json.loads(acts.run(acts.DO, ROUNDS, *place, acts.NOBODY, acts.UNCHECKED))
    assert answers == {act: {"EPERM": ROUNDS} for act in (*acts.ACTS, *acts.ANOTHER_WAY)}
    lines = locked.wait(ACT, count=before + ROUNDS * len(answers))[before:]
    for act in acts.ACTS:
        told = [each for each in lines if each["event"]["act"] == act]
        assert len(told) == ROUNDS * [act, *acts.ANOTHER_WAY.values()].count(act)
        for line in told:
            event, decision = line["event"], line["decision"]
            assert ([each["id"] for each in decision["rules"]], decision["tier"]) == (["CFI005"], "kernel")
            assert line["done"] == ["refused"]
            assert (event["fsuid"], event["acting_fsuid"], event["foreign"]) == (acts.NOBODY, acts.NOBODY, False)
    secret = next(each["event"] for each in lines if each["event"]["act"] == "open_for_writing")
    assert (secret["name"], secret["owner"], secret["mode"]) == ("secret", 0, 0o100600)
    assert secret["ino"] == (folder / "secret").stat().st_ino


@pytest.mark.needs("test_module", "fmod_ret")
def test_root_without_capabilities_gives_files_none(
    locked: RunningAgent, test_module: TestModule, place: tuple[Path, Path]
) -> None:
    folder, _ = place
    before = len(locked.lines(ACT))
    assert acts.run(acts.BARE_ROOT, folder / "plain", acts.UNCHECKED) == f"{errno.EPERM}\n"
    (line,) = locked.wait(ACT, count=before + 1)[before:]
    assert (line["event"]["act"], line["event"]["fsuid"], line["done"]) == ("file_capability", 0, ["refused"])


@pytest.mark.needs("fmod_ret")
def test_what_is_done_by_right_or_refused_by_the_kernel_is_silent(
    locked: RunningAgent, place: tuple[Path, Path], record_property: Record
) -> None:
    folder, _ = place
    before = len(locked.lines(ACT))
    with mounted(folder / "busy", "-t", "tmpfs", "none"):
        refused = json.loads(acts.run(acts.DO, 2, *place, acts.NOBODY, ""))
        assert {act for act, answers in refused.items() if "done" not in answers} == {*acts.ACTS, *acts.ANOTHER_WAY}
    subprocess.run(["mount", "-t", "tmpfs", "none", folder / "busy"], check=True)
    done = json.loads(acts.run(acts.DO, 1, *place, 0, ""))
    assert {act for act, answers in done.items() if "done" in answers} == {*acts.ACTS, *acts.ANOTHER_WAY} - {"module"}
    with overlaid(folder, "below", "merged"):
        acts.run(acts.LEGAL, folder, by=acts.AS_NOBODY)
    own_namespace = ("unshare", "--user", "--map-root-user", "--mount")
    by = (*acts.AS_NOBODY, *own_namespace)
    assert acts.run(acts.IN_A_NAMESPACE, folder, folder / "inner", by=by) == "done\n"
    record_property("a mount that maps users", acts.run(acts.MAPPED, folder, acts.IN_A_NAMESPACE))
    # root, without a capability outside
    assert acts.run(acts.IN_A_NAMESPACE, folder / "plain", by=own_namespace) == "done\n"
    assert acts.run(acts.AS_A_SERVICE, folder, acts.NOBODY) == "done\n"
    locked.settle()
    assert [each["event"] for each in locked.lines(ACT)[before:]] == []


def elsewhere(code: Code) -> Iterator[tuple[int, int, str]]:
    """Places behind calls where the kernel returns, of functions that call nothing locked; and words, see below."""
    legal = {
        each for callers in code.callers(shipped().functions, shipped().jumps()).values() for each in callers.returns
    }
    for match in re.finditer(rb"\xe8...[\x00\xff](?=[\x5b\xc3\xe9])", code.text, re.DOTALL):
        place = code.base + match.end()
        if place not in legal and (words := returns_after(code, place)) is not None:
            yield place, words, code.name(place)


def returns_after(code: Code, place: int) -> int | None:
    """How many words the code there takes from the stack before it returns; None where it does more than that."""
    words, at = 0, place - code.base
    while match := EPILOGUE.match(code.text, at):
        words += match[1] is not None
        words += match[2][0] // 8 if match[2] is not None else 0
        at = match.end()
    if code.text[at : at + 1] == b"\xe9":
        target = code.base + at + 5 + struct.unpack_from("<i", code.text, at + 1)[0]
        return words if code.name(target).partition("+")[0] in ("__x86_return_thunk", "srso_return_thunk") else None
    return words if code.text[at : at + 1] == b"\xc3" else None
